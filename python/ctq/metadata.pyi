from transferq.metadata import *
