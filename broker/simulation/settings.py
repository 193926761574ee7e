"""What is simulated: survey, camera, sky, as one frozen record with presets."""

from dataclasses import dataclass, replace

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
class Camera:
    """What optics and detectors do to the light; every effect is off at 0.

    Parameters
    ----------
    amplifiers : (int, int)
        Rows and columns of amplifiers on a detector.
    psf_variation : float
        The PSF's width changes over a detector by this share in all.
    psf_ellipticity : float
        Largest ellipticity of the PSF.
    misregistration_px : float
        The stated WCS of each exposure is off by this, in any direction. [px]
    overscan_px : int
        Columns of each amplifier that see no light. At 0 a detector is an ideal one, and nothing
        that follows happens; else exposures are raw, and have it taken out again.
    overscan_drift : float
        How far an amplifier's level wanders while it is read. [ADU]
    bias_structure : float
        Rms of what a bias exposure shows beside that level. [ADU]
    dark_e_s : float
        Dark current. [e-/s]
    hot_pixels_per_mpix : float
        Pixels with a thousand times that and more.
    vignetting, dust, pixel_response : float
        Of the flat: light lost in a corner and under a grain of dust, and 1-sigma differences of
        pixels' sensitivity, as shares.
    gain_scatter, read_noise_scatter : float
        1-sigma relative differences of amplifiers.
    nonlinearity : float
        Share of the counts that is missing at 50,000 counts.
    full_well_e : float
        Electrons that a pixel holds; what is more bleeds along its column. 0 is without end. [e-]
    snaps : int
        Exposures that a visit is split into, 1 or 2.
    """

    amplifiers: tuple[int, int] = (2, 4)
    psf_variation: float = 0.0
    psf_ellipticity: float = 0.0
    misregistration_px: float = 0.0
    overscan_px: int = 0
    overscan_drift: float = 0.0
    bias_structure: float = 0.0
    dark_e_s: float = 0.0
    hot_pixels_per_mpix: float = 0.0
    vignetting: float = 0.0
    dust: float = 0.0
    pixel_response: float = 0.0
    gain_scatter: float = 0.0
    read_noise_scatter: float = 0.0
    nonlinearity: float = 0.0
    full_well_e: float = 0.0
    snaps: int = 1

    def __post_init__(self) -> None:
        if min(self.amplifiers) < 1:
            raise ConfigError(f"amplifiers are {self.amplifiers}; at least 1 × 1 are needed")
        if self.snaps not in (1, 2):
            raise ConfigError(f"a visit has 1 or 2 snaps, not {self.snaps}")
        numbers = [value for value in vars(self).values() if isinstance(value, float | int)]
        if min(numbers) < 0.0:
            raise ConfigError(f"no effect of a camera can be negative: {self}")
        for name in ("psf_variation", "psf_ellipticity", "vignetting", "dust", "nonlinearity"):
            if getattr(self, name) >= 0.5:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be below 0.5")

    @property
    def is_raw(self) -> bool:
        """Whether exposures are raw: with overscan, and a signature to be taken out."""
        return self.overscan_px > 0


IDEAL_CAMERA = Camera()
"""One gain, a level bias, a round PSF that is the same everywhere."""

REAL_CAMERA = Camera(
    overscan_px=64,
    overscan_drift=3.0,
    bias_structure=2.0,
    dark_e_s=0.2,
    hot_pixels_per_mpix=50.0,
    vignetting=0.08,
    dust=0.03,
    pixel_response=0.008,
    gain_scatter=0.03,
    read_noise_scatter=0.05,
    nonlinearity=0.02,
    full_well_e=100_000.0,
    snaps=2,
)
"""Eight amplifiers and two snaps: what such a detector does, all at once; the PSF is ideal."""


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
    spheroid_share : float
        Share of the galaxies with de Vaucouleurs' profile; the others are exponential discs.
    dust : float
        How much of the Galaxy's dust there is: 1 is all of it.
    moving_density : float
        Moving objects on the sky at any time. [1/deg²]
    moving_mags : (float, float)
        Their brightest and faintest r magnitudes.
    cosmic_rays_per_mpix : float
        Hits in 30 s on a million pixels.
    camera : Camera
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
    spheroid_share: float = 0.3
    dust: float = 1.0
    moving_density: float = 0.0
    moving_mags: tuple[float, float] = (18.0, 23.5)
    cosmic_rays_per_mpix: float = 3.0
    camera: Camera = IDEAL_CAMERA

    def __post_init__(self) -> None:
        unknown = sorted(set(self.bands) - set(BANDS))
        if unknown or not self.bands:
            raise ConfigError(f"bands {self.bands} are not a choice of {' '.join(BANDS)}")
        for name in ("visits_per_band", "detectors", "detector_px", "template_visits"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        rows, columns = self.camera.amplifiers
        if self.detector_px % rows or self.detector_px % columns:
            raise ConfigError(
                f"a detector of {self.detector_px} px cannot be {rows} × {columns} equal amplifiers"
            )
        if not self.fields:
            raise ConfigError("there is no field to look at")
        if self.dither_px > self.template_margin_px - 4:
            raise ConfigError(
                f"visits are off by up to {self.dither_px} px: templates need a margin of 4 px "
                f"more, it is {self.template_margin_px}"
            )


DEMO = Settings(camera=REAL_CAMERA, moving_density=600.0)
"""Two fields, two detectors, three bands, four visits each: 48 raw images of 1024 × 1024."""

SMALL = replace(DEMO, fields=(Field("cosmos", 150.11, 2.23),), bands=("g", "r"))
"""One field of the demo's in two bands: 16 raw images of 1024 × 1024."""

TEST = Settings(
    fields=(Field("cosmos", 150.11, 2.23),),
    bands=("r",),
    visits_per_band=2,
    detectors=1,
    detector_px=256,
    template_visits=3,
)
"""Two images of 256 × 256, of an ideal camera."""

PRESETS = {"demo": DEMO, "small": SMALL, "test": TEST}
