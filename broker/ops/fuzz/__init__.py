"""Mutated packets through the decode stage and the cutout codec: all accounted for, no crash."""

from broker.ops.fuzz.judge import IMAGES, SURVEYS, Verdict, judge, seeds_of
from broker.ops.fuzz.mutate import MUTATIONS, bomb, mutate

__all__ = [
    "IMAGES",
    "MUTATIONS",
    "SURVEYS",
    "Verdict",
    "bomb",
    "judge",
    "mutate",
    "seeds_of",
]
