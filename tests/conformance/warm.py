"""Imported by the server that workers are forked from: everything but a client."""

import numpy as np
import tensordict
import torch

import transferq

__all__ = ["transferq", "np", "tensordict", "torch"]
