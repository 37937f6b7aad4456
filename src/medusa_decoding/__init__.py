"""Medusa decoding: several tokens per forward pass, the same text."""

__version__ = "0.1.0"
