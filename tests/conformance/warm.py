"""Imported by the server that workers are forked from: everything but a client."""

import numpy as np
import tensordict
import torch

import ctq

__all__ = ["ctq", "np", "tensordict", "torch"]
