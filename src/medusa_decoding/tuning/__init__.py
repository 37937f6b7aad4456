"""Measure this machine with a model and its heads, once, so that trees can be as large as pays."""

from medusa_decoding.tuning.auto import automatic_planner
from medusa_decoding.tuning.cache import Key, key_of, load_profile, save_profile
from medusa_decoding.tuning.measure import FULL, QUICK, Effort, measure
from medusa_decoding.tuning.profile import Profile

__all__ = [
    "FULL",
    "QUICK",
    "Effort",
    "Key",
    "Profile",
    "automatic_planner",
    "key_of",
    "load_profile",
    "measure",
    "save_profile",
]
