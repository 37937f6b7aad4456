"""Measure Medusa against autoregressive decoding on a suite of prompts."""
