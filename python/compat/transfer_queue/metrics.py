"""Where the metrics are served."""

from transferq import get_metrics_endpoint

__all__ = ["get_metrics_endpoint"]
