"""Quality flags of an image: a bit each, the number of the scorecard it comes from, and its limit.

To add one: the next free bit, and a line in `CHECKS`. None is ever renumbered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import numpy as np


class ImageFlag(IntFlag):
    """What may be wrong with an image."""

    BAD_AMPLIFIER = 1 << 0
    CLOUDS = 1 << 1
    PATCHY_CLOUDS = 1 << 2
    LOST_GUIDING = 1 << 3
    WRONG_FLAT = 1 << 4
    NOISE = 1 << 5
    FEW_STARS = 1 << 6
    MASKED = 1 << 7
    WCS = 1 << 8
    SUBTRACTION = 1 << 9
    POOR_SEEING = 1 << 10
    SHALLOW = 1 << 11
    SKY_LEVEL = 1 << 12
    FAILED = 1 << 13


@dataclass(frozen=True)
class Check:
    """One reason for a flag.

    Parameters
    ----------
    flag : ImageFlag
    number : str
        Of the scorecard.
    least, most : float
        The flag is set outside this range; a number that is not known sets none.
    meaning : str
        One sentence.
    """

    flag: ImageFlag
    number: str
    least: float
    most: float
    meaning: str


_INF = float("inf")

CHECKS: tuple[Check, ...] = (
    Check(
        ImageFlag.BAD_AMPLIFIER,
        "amplifierStep",
        -_INF,
        0.01,
        "The sky steps at an amplifier's border, by this share of it.",
    ),
    Check(
        ImageFlag.BAD_AMPLIFIER,
        "amplifierNoise",
        0.8,
        1.25,
        "An amplifier's noise is this many times that of the others.",
    ),
    Check(
        ImageFlag.BAD_AMPLIFIER,
        "amplifierLost",
        -_INF,
        0.5,
        "This share of an amplifier is masked.",
    ),
    Check(
        ImageFlag.CLOUDS,
        "zeroPointOff",
        -0.1,
        _INF,
        "Stars are fainter than the zero point says. [mag]",
    ),
    Check(
        ImageFlag.PATCHY_CLOUDS,
        "transparencySpread",
        -_INF,
        0.1,
        "The faintness of stars surely differs over the image by this. [mag]",
    ),
    Check(
        ImageFlag.LOST_GUIDING,
        "ellipticity",
        -_INF,
        0.07,
        "All stars are elongated in one direction: (a² - b²) / (a² + b²).",
    ),
    Check(
        ImageFlag.WRONG_FLAT,
        "skyShape",
        -_INF,
        0.0013,
        "The sky has a smooth shape that is no gradient: its scatter as a share of it.",
    ),
    Check(
        ImageFlag.NOISE,
        "noiseRatio",
        0.85,
        1.15,
        "The variance of the sky is this many times what gain and read noise make of it.",
    ),
    Check(
        ImageFlag.FEW_STARS,
        "starShare",
        0.6,
        _INF,
        "This share of the stars that are expected is seen.",
    ),
    Check(ImageFlag.MASKED, "maskedShare", -_INF, 0.1, "This share of the pixels is masked."),
    Check(
        ImageFlag.WCS,
        "wcsShiftPx",
        -_INF,
        0.5,
        "Stars are off their places, in the median. [pixel]",
    ),
    Check(
        ImageFlag.SUBTRACTION,
        "subtractionRatio",
        -_INF,
        0.2,
        "This share of the stars' light is left on the difference.",
    ),
    Check(
        ImageFlag.SUBTRACTION,
        "differenceChi",
        0.8,
        1.25,
        "The scatter of the difference is this many times its error.",
    ),
    Check(
        ImageFlag.POOR_SEEING,
        "seeingOverUsual",
        -_INF,
        1.6,
        "The PSF is this many times as wide as usual in the band.",
    ),
    Check(
        ImageFlag.SHALLOW,
        "depthOff",
        -0.6,
        _INF,
        "The 5-sigma limit is this much brighter than usual in the band. [mag]",
    ),
    Check(
        ImageFlag.SKY_LEVEL,
        "skyOverUsual",
        0.4,
        2.5,
        "The sky is this many times as bright as usual in the band.",
    ),
)
"""All reasons, in the order in which a person would look for them."""


def flags_of(card: Mapping[str, Any]) -> int:
    """Return the flags of a scorecard; a failed image is `FAILED` beside what else is known."""
    flags = int(ImageFlag.FAILED) if card.get("failure") else 0
    for check in CHECKS:
        value = card.get(check.number)
        known = isinstance(value, int | float) and np.isfinite(value)
        if known and not check.least <= float(value) <= check.most:  # type: ignore[arg-type]
            flags |= int(check.flag)
    return flags


def names(flags: int) -> list[str]:
    """Return the names of the flags that are set, lowest bit first."""
    return [flag.name or "" for flag in ImageFlag if flags & flag]


def reasons(card: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each check that a scorecard does not pass."""
    said = [f"FAILED: {card['failure']}"] if card.get("failure") else []
    for check in CHECKS:
        value = card.get(check.number)
        if not isinstance(value, int | float) or not np.isfinite(value):
            continue
        if not check.least <= value <= check.most:
            limit = check.most if value > check.most else check.least
            said.append(
                f"{check.flag.name}: {check.number} {value:.3g}, limit {limit:g}. {check.meaning}"
            )
    return said
