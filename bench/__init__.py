"""Benchmarks of the queue, side by side with its alternatives; `python -m bench --help`."""
