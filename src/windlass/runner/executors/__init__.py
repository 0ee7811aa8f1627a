"""Executors: what is done with a job once everything that it needs is on this machine."""
