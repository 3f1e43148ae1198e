"""`transferq.errors` under the former name of the package."""

from transferq.errors import *
