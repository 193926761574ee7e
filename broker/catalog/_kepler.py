"""The compiled loop of two-body motion, apart from it, as importing numba takes a while."""

from typing import Any

import numpy as np
from numba import njit

compiled: Any = njit(cache=True, nogil=True)

_MOST_STEPS = 60


@compiled
def _stumpff(x: float) -> tuple[float, float, float, float]:
    """Return c0 to c3 of Stumpff at x (Danby 1988, Fundamentals of Celestial Mechanics, 6.9)."""
    halvings = 0
    while abs(x) > 0.1:
        x *= 0.25
        halvings += 1
    c2 = (1.0 - x * (1.0 - x * (1.0 - x * (1.0 - x / 90.0) / 56.0) / 30.0) / 12.0) / 2.0
    c3 = (1.0 - x * (1.0 - x * (1.0 - x * (1.0 - x / 110.0) / 72.0) / 42.0) / 20.0) / 6.0
    c1 = 1.0 - x * c3
    c0 = 1.0 - x * c2
    for _ in range(halvings):
        c3 = (c2 + c0 * c3) / 4.0
        c2 = c1 * c1 / 2.0
        c1 = c0 * c1
        c0 = 2.0 * c0 * c0 - 1.0
    return c0, c1, c2, c3


@compiled
def _universal_anomaly(days: float, q: float, e: float, mu: float) -> float:
    """Return s such that q G1(s) + mu G3(s) is the time since the perihelion. [d / au]"""
    beta = mu * (1.0 - e) / q
    if e < 0.97:
        rate = np.sqrt(beta)
        mean = days * beta * rate / mu
        s = (mean + 0.85 * e * np.sign(np.sin(mean))) / rate
    else:  # of a parabola, by Cardano's formula
        half = 3.0 * abs(days) / mu
        root = (half + np.sqrt(half * half + (2.0 * q / mu) ** 3)) ** (1.0 / 3.0)
        s = np.sign(days) * (root - 2.0 * q / mu / root)
    for _ in range(_MOST_STEPS):  # Laguerre's method as Conway (1986) uses it, of order 5
        c0, c1, c2, c3 = _stumpff(beta * s * s)
        f = s * (q * c1 + mu * s * s * c3) - days
        first = q * c0 + mu * s * s * c2
        second = mu * e * s * c1
        inner = np.sqrt(abs(16.0 * first * first - 20.0 * f * second))
        step = 5.0 * f / (first + np.sign(first) * inner)
        s -= step
        if abs(step) <= 1e-13 * (1.0 + abs(s)):
            break
    return s


@compiled
def in_orbit(
    days: Any, q: Any, e: Any, period: Any, p_axis: Any, q_axis: Any, mu: float, out: Any
) -> None:
    """Put the places of bodies on two-body orbits into `out`, shape (n, 3). [au]

    Parameters
    ----------
    days : NDArray[np.float64], shape (n,)
        Time since the perihelion. [d]
    q, e : NDArray[np.float64], shape (n,)
        Perihelion distance [au] and eccentricity.
    period : NDArray[np.float64], shape (n,)
        Time of a revolution; infinite where the orbit is open. [d]
    p_axis, q_axis : NDArray[np.float64], shape (n, 3)
        Unit vectors to the perihelion, and 90 deg ahead of it in the orbit.
    mu : float
        Gravity of the Sun. [au³ / d²]
    out : NDArray[np.float64], shape (n, 3)
    """
    for i in range(days.size):
        t = days[i]
        if np.isfinite(period[i]):
            t -= period[i] * np.rint(t / period[i])
        s = _universal_anomaly(t, q[i], e[i], mu)
        _, _, c2, c3 = _stumpff(mu * (1.0 - e[i]) / q[i] * s * s)
        along = q[i] - mu * s * s * c2
        ahead = (t - mu * s * s * s * c3) * np.sqrt(mu * (1.0 + e[i]) / q[i])
        for k in range(3):
            out[i, k] = along * p_axis[i, k] + ahead * q_axis[i, k]
