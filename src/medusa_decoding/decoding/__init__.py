"""The Medusa algorithm in NumPy: trees, acceptance, sampling, planning, the loop.

Knows no engine and no files.
"""

from medusa_decoding.decoding.acceptance import Acceptance, ExactAcceptance, TypicalAcceptance
from medusa_decoding.decoding.adaptive import AdaptivePlanner
from medusa_decoding.decoding.calibration import CalibratedDrafter, Calibration
from medusa_decoding.decoding.cost import StepCost
from medusa_decoding.decoding.lookup import LookupDrafter
from medusa_decoding.decoding.loop import Decoder, Step
from medusa_decoding.decoding.planner import BestFirstPlanner, StaticPlanner
from medusa_decoding.decoding.protocols import (
    Context,
    Drafter,
    Engine,
    NoDrafter,
    Outcome,
    Planner,
    Rows,
    Verified,
)
from medusa_decoding.decoding.sampling import Distribution, SamplingParameters
from medusa_decoding.decoding.sequence import Sequence
from medusa_decoding.decoding.stats import Statistics
from medusa_decoding.decoding.tree import LOOKUP, Proposals, Tree

__all__ = [
    "LOOKUP",
    "Acceptance",
    "AdaptivePlanner",
    "BestFirstPlanner",
    "CalibratedDrafter",
    "Calibration",
    "Context",
    "Decoder",
    "Distribution",
    "Drafter",
    "Engine",
    "ExactAcceptance",
    "LookupDrafter",
    "NoDrafter",
    "Outcome",
    "Planner",
    "Proposals",
    "Rows",
    "SamplingParameters",
    "Sequence",
    "StaticPlanner",
    "Statistics",
    "Step",
    "StepCost",
    "Tree",
    "TypicalAcceptance",
    "Verified",
]
