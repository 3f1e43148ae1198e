"""The former name of the package `transferq`."""

from transferq import *
from transferq import __all__ as __all__
from transferq import __version__ as __version__

from . import client as client
from . import config as config
from . import errors as errors
from . import metadata as metadata
from . import samplers as samplers
from . import storage as storage
