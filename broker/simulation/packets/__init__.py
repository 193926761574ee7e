"""Packets of the surveys' own formats, for those who have no real ones.

Framing, schemas, sizes and traps are those of the real packets; ids, positions, light curves and
noise are each packet's own. A packet is the same for the same (seed, index), however many are
made, by whom, and in what order.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.errors import ConfigError
from broker.simulation.packets import lsst, ztf
from broker.simulation.packets.common import Place, draw_place
from broker.simulation.streams import generator

__all__ = ["SURVEYS", "simulate_packets"]

_MAKERS: dict[str, Callable[..., bytes]] = {"ztf": ztf.packet, "lsst": lsst.packet}

SURVEYS = tuple(sorted(_MAKERS))
"""The surveys whose packets are simulated."""

MAX_INDEX = 999_999
"""The largest index of a packet: ids hold six digits of it."""


def simulate_packets(
    survey: str,
    n: int,
    seed: int = 0,
    *,
    first: int = 0,
    versions: Sequence[str] = (),
    history: Literal["full", "short"] = "full",
    near: ArrayLike | None = None,
    near_fraction: float = 0.5,
) -> Iterator[bytes]:
    """Yield packets of a survey.

    Parameters
    ----------
    survey : str
        `ztf`: container files of 57 to 90 kB; `lsst`: framed packets.
    n : int
        How many.
    seed : int
        At least 0; it chooses the night and all that is drawn.
    first : int
        Index of the first packet: the work can be split.
    versions : sequence of str
        Schema versions, used in turn; default those of the real samples.
    history : "full" or "short"
        For `lsst`: three packets in five with 300 to 390 earlier diaSources and 340 to 780
        forced fluxes, 224 kB in the mean; or none with more than 20 of either. No effect on
        `ztf`, whose packets hold a month.
    near : array_like, shape (n_positions, 2), optional
        Positions (ra, dec) near which a share of the alerts lies. [deg]
    near_fraction : float
        That share, 0 to 1.

    Raises
    ------
    ConfigError
        If the survey or a version is not known, or an index is too large.
    """
    if survey not in _MAKERS:
        raise ConfigError(f"packets of {survey!r} are not simulated; only {', '.join(SURVEYS)}")
    if not 0 <= first <= first + n <= MAX_INDEX + 1 or seed < 0:
        raise ConfigError(f"indices must be within 0 to {MAX_INDEX}, and the seed not negative")
    places = None if near is None else np.asarray(near, np.float64).reshape(-1, 2)
    module = {"ztf": ztf, "lsst": lsst}[survey]
    chosen = tuple(versions) or module.VERSIONS
    for index in range(first, first + n):
        rng = generator(seed, f"packets-{survey}", index)
        place = _place(rng, places, near_fraction)
        version = chosen[index % len(chosen)]
        yield _MAKERS[survey](rng, seed, index, place, version=version, history=history)


def _place(rng: np.random.Generator, places: NDArray[np.float64] | None, fraction: float) -> Place:
    is_near, which = rng.random(), rng.random()
    if places is None or not len(places) or is_near >= fraction:
        return draw_place(rng, None)
    return draw_place(rng, places[int(which * len(places))])
