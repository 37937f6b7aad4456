"""The CPU engine: int8 or fp32 weights, logits that do not depend on how rows are grouped."""
