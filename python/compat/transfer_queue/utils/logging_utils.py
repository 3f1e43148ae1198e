"""Loggers."""

from __future__ import annotations

import logging
import os


def get_logger(name: str | None, default_level: str = "WARNING") -> logging.Logger:
    """A logger at the level of TQ_LOGGING_LEVEL, else at the default; it writes, also where nothing is set up."""
    logger = logging.getLogger(name)
    logger.setLevel(os.environ.get("TQ_LOGGING_LEVEL", default_level))
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s - %(levelname)s - %(name)s - %(message)s")
        )
        logger.addHandler(handler)
    return logger


__all__ = ["get_logger"]
