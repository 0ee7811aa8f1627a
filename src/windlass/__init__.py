"""Windlass: a self-hosted work server."""

__version__ = "0.1.0"
