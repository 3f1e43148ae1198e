from transferq.client import *
