from transferq.storage import *
