"""What a kind of transient declares: one file in `transients/`, found by scanning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Params = Mapping[str, NDArray[Any]]
"""Parameters of n transients: arrays whose first axis has length n."""

COLOUR_SLOPE = {"u": 2.0, "g": 1.0, "r": 0.0, "i": -0.5, "z": -0.7, "y": -0.8}
"""Magnitude of a band minus that of r, for an object with g - r = 1: the slopes of the stellar
locus in the middle of its range (Covey et al. 2007, AJ 134 2398), rounded."""


class Host(Enum):
    """Where transients of a kind happen."""

    NOWHERE = "nowhere"
    """On empty sky."""
    GALAXY = "galaxy"
    """Somewhere in the light of a galaxy."""
    NUCLEUS = "nucleus"
    """On the centre of a galaxy."""
    STAR = "star"
    """It is a star of the static sky that changes."""


@dataclass(frozen=True)
class Surroundings:
    """What a kind is drawn from: n transients of one patch of the sky.

    Parameters
    ----------
    amplitude : NDArray[np.float64], shape (n,)
        How large the change of flux is to be, near its maximum, in r. [nJy]
    redshift : NDArray[np.float64], shape (n,)
        Of the host; 0 where there is none.
    first_mjd : float
        MJD (TAI) in the middle of night 0: the transients are drawn to be seen then. [d]
    """

    amplitude: FloatArray
    redshift: FloatArray
    first_mjd: float


@dataclass(frozen=True)
class TransientClass:
    """One kind of transient.

    Parameters
    ----------
    name : str
        Its name in the truth table.
    share : float
        Its density on the sky is this times the settings' `transient_density`.
    host : Host
    draw : callable (Generator, Surroundings) -> Params
        Draws the parameters; nothing else is random.
    flux : callable (mjd, band, params) -> NDArray[np.float64], shape (n,)
        Total flux of each at one time. [nJy]
    template_flux : callable (band, params) -> NDArray[np.float64], shape (n,)
        Its flux in the templates, so that `flux - template_flux` is what a difference image
        shows. [nJy]
    is_variable : bool
        The reference catalogue calls the star itself variable.
    """

    name: str
    share: float
    host: Host
    draw: Callable[[np.random.Generator, Surroundings], Params]
    flux: Callable[[float, str, Params], FloatArray]
    template_flux: Callable[[str, Params], FloatArray]
    is_variable: bool = False


def band_factor(colour: ArrayLike, band: str) -> FloatArray:
    """Return the flux in a band over that in r, for objects of a colour g - r."""
    return np.power(10.0, -0.4 * np.asarray(colour, dtype=np.float64) * COLOUR_SLOPE[band])


def dark_template(band: str, params: Params) -> FloatArray:  # noqa: ARG001  (a template_flux)
    """Return zeros: what the templates hold of a transient that was not there before."""
    return np.zeros(len(next(iter(params.values()))))


def quiescent_template(band: str, params: Params) -> FloatArray:
    """Return the flux of stars at rest, from the parameters `quiescent` [nJy, r] and `colour`."""
    return np.asarray(params["quiescent"] * band_factor(params["colour"], band))
