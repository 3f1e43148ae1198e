from transferq.config import *
