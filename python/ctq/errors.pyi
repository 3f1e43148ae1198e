from transferq.errors import *
