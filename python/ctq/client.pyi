"""`transferq.client` under the former name of the package."""

from transferq.client import *
