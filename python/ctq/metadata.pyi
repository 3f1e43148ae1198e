"""`transferq.metadata` under the former name of the package."""

from transferq.metadata import *
