"""`transferq.config` under the former name of the package."""

from transferq.config import *
