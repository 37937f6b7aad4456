"""The planner of `--tree auto`."""

from __future__ import annotations

from contextlib import suppress

from medusa_decoding.decoding import AdaptivePlanner, Drafter, Engine
from medusa_decoding.tuning.cache import key_of, load_profile, save_profile
from medusa_decoding.tuning.measure import QUICK, Progress, measure


def automatic_planner(
    engine: Engine,
    drafter: Drafter | None,
    *,
    model: str,
    heads: str | None,
    progress: Progress | None = None,
) -> AdaptivePlanner:
    """A planner that knows this machine, from the profile that was kept or a quick one, made and kept now.

    engine: verifies trees. drafter, heads: the heads and their name, None where there are none. model: the
    base model's fingerprint. A quick profile takes two
    to three seconds where a pass takes 5 ms; `medusa profile` makes a better one in its place.
    """
    key = key_of(engine, model=model, heads=heads)
    profile = load_profile(key)
    if profile is None:
        profile = measure(engine, drafter, QUICK, progress)
        # Figures of a busy moment do for now; the next start measures again, as where nothing can be kept.
        if profile.is_quiet:
            with suppress(OSError):
                save_profile(key, profile)
    return AdaptivePlanner(profile.cost)
