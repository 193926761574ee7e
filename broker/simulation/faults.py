"""Faults that can be planted in an exposure, for those who test what is to find them.

All are off by default. They come on top of what the camera always does (`Camera` in `settings.py`),
and nothing in the exposure's record tells of them: the zero point, the PSF and the WCS that it
states are those of an exposure without fault.
"""

from dataclasses import dataclass

import numpy as np

from broker.errors import ConfigError


@dataclass(frozen=True)
class Faults:
    """What is wrong with an exposure.

    Parameters
    ----------
    bad_amplifier : int, optional
        Which amplifier fails, from 0, row by row (see `Camera.amplifiers`).
    amplifier_factor : float
        The failing amplifier's counts above the bias are multiplied by this.
    amplifier_noise : float
        Noise that it adds, 1 sigma. [ADU]
    clouds_mag : float
        Extinction by clouds at the detector's centre. [mag]
    cloud_slope : float
        Its change from one edge to the other along x, as a share of it.
    guiding_px : float
        How far the telescope drifts while the shutter is open. [px]
    guiding_angle_deg : float
        Direction of the drift, from x towards y. [deg]
    wrong_flat : float
        Largest relative error of the flat: vignetting and dust of another night.
    misregistration_px : (float, float)
        The stated WCS is off by this in x and y. [px]

    Raises
    ------
    ConfigError
        If a number is not finite, or negative where it cannot be.
    """

    bad_amplifier: int | None = None
    amplifier_factor: float = 0.8
    amplifier_noise: float = 15.0
    clouds_mag: float = 0.0
    cloud_slope: float = 0.3
    guiding_px: float = 0.0
    guiding_angle_deg: float = 30.0
    wrong_flat: float = 0.0
    misregistration_px: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        numbers = (
            self.amplifier_factor,
            self.amplifier_noise,
            self.clouds_mag,
            self.cloud_slope,
            self.guiding_px,
            self.guiding_angle_deg,
            self.wrong_flat,
            *self.misregistration_px,
        )
        if not np.isfinite(numbers).all():
            raise ConfigError(f"a fault has a number that is not finite: {self}")
        for name in ("amplifier_factor", "amplifier_noise", "clouds_mag", "guiding_px"):
            if getattr(self, name) < 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0.0 <= self.wrong_flat < 1.0:
            raise ConfigError(f"wrong_flat is {self.wrong_flat}; it must be from 0 to below 1")

    @property
    def drift(self) -> tuple[float, float]:
        """The telescope's drift in x and y. [px]"""
        angle = np.radians(self.guiding_angle_deg)
        return float(self.guiding_px * np.cos(angle)), float(self.guiding_px * np.sin(angle))


NO_FAULTS = Faults()
"""An exposure as it should be."""
