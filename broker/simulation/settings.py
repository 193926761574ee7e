"""What is simulated: survey, camera, sky, as one frozen record with presets."""

from dataclasses import dataclass

from broker.errors import ConfigError
from broker.units import BANDS


@dataclass(frozen=True)
class Field:
    """A pointing that is visited again and again.

    Parameters
    ----------
    name : str
    ra, dec : float
        Where the camera's axis points, before the small offset of each visit. [deg]
    """

    name: str
    ra: float
    dec: float


@dataclass(frozen=True)
class Settings:
    """Everything a simulated survey is made from, but its seed.

    Parameters
    ----------
    fields : tuple of Field
    bands : tuple of str
    visits_per_band : int
        Visits of a field in each band in one night.
    detectors : int
        CCDs of the camera, in a row along right ascension.
    detector_px : int
        Side of a detector. [px]
    scale_arcsec : float
        Side of a pixel. [arcsec]
    first_night_mjd : int
        MJD (at 0 h UTC) in the middle of night 0's darkness.
    exposure_s : float
        Exposure time. [s]
    dither_px : float
        A visit is off the field's centre by at most this along each axis. [px]
    template_visits : int
        Earlier visits that each template is made from.
    template_margin_px : int
        How far a template reaches beyond an undithered detector. [px]
    star_density, galaxy_density, transient_density : float
        Objects on the sky; a kind of transient has its share of the last. [1/deg²]
    star_mags, galaxy_mags : (float, float)
        Brightest and faintest r magnitudes.
    transient_fluxes : (float, float)
        Smallest and largest amplitude. [nJy]
    cosmic_rays_per_mpix : float
        Hits in 30 s on a million pixels.
    """

    fields: tuple[Field, ...] = (Field("cosmos", 150.11, 2.23), Field("ecdfs", 53.12, -28.10))
    bands: tuple[str, ...] = ("g", "r", "i")
    visits_per_band: int = 4
    detectors: int = 2
    detector_px: int = 1024
    scale_arcsec: float = 0.25
    first_night_mjd: int = 60_990
    exposure_s: float = 30.0
    dither_px: float = 12.0
    template_visits: int = 8
    template_margin_px: int = 32
    star_density: float = 30_000.0
    galaxy_density: float = 16_000.0
    transient_density: float = 17_000.0
    star_mags: tuple[float, float] = (15.5, 24.0)
    galaxy_mags: tuple[float, float] = (18.0, 23.5)
    transient_fluxes: tuple[float, float] = (500.0, 25_000.0)
    cosmic_rays_per_mpix: float = 3.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.bands) - set(BANDS))
        if unknown or not self.bands:
            raise ConfigError(f"bands {self.bands} are not a choice of {' '.join(BANDS)}")
        for name in ("visits_per_band", "detectors", "detector_px", "template_visits"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.fields:
            raise ConfigError("there is no field to look at")
        if self.dither_px > self.template_margin_px - 4:
            raise ConfigError(
                f"visits are off by up to {self.dither_px} px: templates need a margin of 4 px "
                f"more, it is {self.template_margin_px}"
            )


DEMO = Settings()
"""Two fields, two detectors, three bands, four visits each: 48 images of 1024 × 1024."""

SMALL = Settings(fields=(Field("cosmos", 150.11, 2.23),), bands=("g", "r"))
"""One field of the demo's in two bands: 16 images of 1024 × 1024."""

TEST = Settings(
    fields=(Field("cosmos", 150.11, 2.23),),
    bands=("r",),
    visits_per_band=2,
    detectors=1,
    detector_px=256,
    template_visits=3,
)
"""Two images of 256 × 256."""

PRESETS = {"demo": DEMO, "small": SMALL, "test": TEST}
