"""Medusa-2 training: heads and base model together, the base model held to what it was (section 2.2.2)."""
