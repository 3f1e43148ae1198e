"""Benchmarks of the queue, side by side with what else one would use; `python -m bench --help`."""
