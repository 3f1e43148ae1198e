from transferq.streaming import *
