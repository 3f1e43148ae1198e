from transferq.samplers import *
