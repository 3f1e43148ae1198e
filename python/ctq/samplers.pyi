"""`transferq.samplers` under the former name of the package."""

from transferq.samplers import *
