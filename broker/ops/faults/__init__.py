"""Faults on purpose: kill, stop and cut off parts of a running broker, and prove nothing is lost.

Everything runs on servers of its own, with ports of their own; what else runs is left alone.
"""

from broker.ops.faults.bench import FaultBench, FaultRow, bench_faults
from broker.ops.faults.kinds import KINDS, draw, usable
from broker.ops.faults.soak import Soak, bench_soak, slope_of

__all__ = [
    "KINDS",
    "FaultBench",
    "FaultRow",
    "Soak",
    "bench_faults",
    "bench_soak",
    "draw",
    "slope_of",
    "usable",
]
