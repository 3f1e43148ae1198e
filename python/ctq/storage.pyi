"""`transferq.storage` under the former name of the package."""

from transferq.storage import *
