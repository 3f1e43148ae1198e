"""What the server that workers are forked from has imported: all but a client."""

import numpy as np
import tensordict
import torch

import ctq

__all__ = ["ctq", "np", "tensordict", "torch"]
