"""Benchmarks of Windlass against real peers on one machine; `benchmarks/run.py` is the way in."""
