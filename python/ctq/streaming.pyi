"""`transferq.streaming` under the former name of the package."""

from transferq.streaming import *
