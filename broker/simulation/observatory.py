"""A night at the observatory: its messages, its truth, and what was known before it."""

import itertools
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from broker.errors import ConfigError
from broker.imaging.coadd import coadd
from broker.imaging.image import Image
from broker.imaging.message import encode_image, to_image
from broker.imaging.templates import TemplateStore
from broker.simulation.cadence import Visit, field_wcs, night_visits, template_visits
from broker.simulation.calibrations import masters_of
from broker.simulation.exposure import Drawn, draw_exposure
from broker.simulation.scene import catalogued_patches, is_star
from broker.simulation.settings import DEMO, Settings
from broker.simulation.sky import Patch, draw_patch
from broker.simulation.truth import TRUTH, truth_of
from broker.topics.topic import Message
from broker.types import night_of
from broker.units import flux_to_mag

_THREADS = 2

CATALOG = "reference"
"""The catalogue that the static sky is installed as."""

_SIZE_IN_HALF_LIGHT = 3.0
"""A galaxy is catalogued with this many half-light radii as its size: no transient is drawn
further out, 96 % of the light is inside."""


@dataclass(frozen=True)
class Exposure:
    """One message of a night and the truth of it.

    Parameters
    ----------
    message : Message
        Of the topic `ccd-images`, with the key `<field>-<detector>`.
    truth : pa.Table
        With the schema `TRUTH`.
    visit : Visit
    detector : int
    """

    message: Message
    truth: pa.Table
    visit: Visit
    detector: int


@dataclass(frozen=True)
class Night:
    """A simulated night; nothing is drawn until it is asked for.

    Parameters
    ----------
    seed : int
    settings : Settings
    index : int
        Nights follow each other: 0, 1, 2… see the same sky a day later each.
    visits : tuple of Visit
        In time order.
    """

    seed: int
    settings: Settings
    index: int
    visits: tuple[Visit, ...]

    @property
    def night(self) -> str:
        """Its label: `YYYYMMDD`."""
        return night_of(self.visits[0].midpoint_mjd_tai)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.visits) * self.settings.detectors

    def exposures(self) -> Iterator[Exposure]:
        """Draw the night: one message a detector, visits in time order."""
        for visit in self.visits:
            for detector in range(self.settings.detectors):
                yield self.exposure(visit, detector)

    def exposure(self, visit: Visit, detector: int) -> Exposure:
        """Draw one detector of one visit: the same whatever else is drawn."""
        drawn = self.draw(visit, detector)
        # One key a place on the sky: its images stay in time order, on one partition.
        key = f"{visit.field}-{detector}".encode()
        return Exposure(
            Message(encode_image(drawn.raw), key=key),
            truth_of(self.seed, self.settings, drawn),
            visit,
            detector,
        )

    def draw(self, visit: Visit, detector: int) -> Drawn:
        """Draw one detector of one visit and keep what only the simulation knows."""
        return draw_exposure(self.seed, self.settings, visit, detector)


def simulate_night(*, seed: int, night_index: int = 0, settings: Settings = DEMO) -> Night:
    """Return a night.

    Parameters
    ----------
    seed : int
        Of the survey: the same seed is the same sky, at any night.
    night_index : int
        Which night, from 0.
    settings : Settings
    """
    if seed < 0 or night_index < 0:
        raise ValueError(f"seed {seed} and night_index {night_index} must not be negative")
    return Night(seed, settings, night_index, night_visits(seed, settings, night_index))


def template_version(seed: int, settings: Settings) -> str:
    """Return the name of the set of templates: the first night it is for."""
    return simulate_night(seed=seed, settings=settings).night


def make_templates(
    seed: int, settings: Settings, *, advance: Callable[[int], None] = lambda _: None
) -> Iterator[Image]:
    """Make the templates of all fields, detectors and bands, from earlier visits.

    Parameters
    ----------
    seed : int
    settings : Settings
    advance : callable
        Called with 1 after each template.
    """
    places = itertools.product(
        range(len(settings.fields)), range(settings.detectors), settings.bands
    )
    # The compiled loops let other threads run.
    with ThreadPoolExecutor(_THREADS) as pool:
        for image in pool.map(lambda place: make_template(seed, settings, *place), places):
            yield image
            advance(1)


def make_template(seed: int, settings: Settings, field: int, detector: int, band: str) -> Image:
    """Make one template: it reaches beyond the detector by the settings' margin."""
    margin = settings.template_margin_px
    side = settings.detector_px + 2 * margin
    masters = masters_of(seed, settings, detector) if settings.camera.is_raw else None
    images = [
        to_image(draw_exposure(seed, settings, visit, detector, quiescent=True).raw, masters)
        for visit in template_visits(seed, settings, field, band)
    ]
    return coadd(
        images, field_wcs(settings, field, detector).shifted(-margin, -margin), (side, side)
    )


def build_templates(
    seed: int,
    settings: Settings,
    store: TemplateStore,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> str:
    """Put the survey's templates into a store, unless they are there; return their version.

    Raises
    ------
    ConfigError
        If the store has those of another survey: it would be seen with the wrong sky.
    """
    version, survey = template_version(seed, settings), survey_name(seed, settings)
    if version not in store.versions():
        templates = make_templates(seed, settings, advance=advance)
        store.put(version, (replace(t, meta=t.meta | {"survey": survey}) for t in templates))
        return version
    place = field_wcs(settings, 0, 0).pixel_to_sky(0.0, 0.0)
    there = store.find(float(place[0]), float(place[1]), settings.bands[0], version)
    found = there.image.meta.get("survey") if there else None
    if found != survey:
        raise ConfigError(
            f"the templates {version} are of another simulated survey ({found}, not {survey}): "
            "use its seed and preset, or another run (--run NAME)"
        )
    return version


def survey_name(seed: int, settings: Settings) -> str:
    """Return a name for a survey: its seed, and a hash of its settings."""
    return f"seed {seed}, settings {zlib.crc32(repr(settings).encode()):08x}"


def reference_catalog(seed: int, settings: Settings) -> pa.Table:
    """Return the static sky as rows for the catalogue `reference`.

    Columns id, ra, dec [deg], class (star, galaxy, variable), mag (r, AB), sizeArcsec [arcsec] and
    redshift; size and redshift are null for stars.
    """
    parts: list[pa.Table] = []
    for number in catalogued_patches(settings):
        parts.extend(_catalog_rows(draw_patch(seed, settings, int(number))))
    return pa.concat_tables(parts)


def _catalog_rows(patch: Patch) -> Iterator[pa.Table]:
    stars, galaxies = patch.stars, patch.galaxies
    yield _rows("star", "star", stars.number, stars.ra, stars.dec, stars.mag)
    yield _rows(
        "galaxy",
        "galaxy",
        galaxies.number,
        galaxies.ra,
        galaxies.dec,
        galaxies.mag,
        size=_SIZE_IN_HALF_LIGHT * galaxies.half_light_arcsec * np.maximum(1, galaxies.axis_ratio),
        redshift=galaxies.redshift,
    )
    for population in patch.transients:
        if is_star(population):
            kind = population.kind
            yield _rows(
                kind.name,
                "variable" if kind.is_variable else "star",
                population.number,
                population.ra,
                population.dec,
                flux_to_mag(population.quiescent_flux("r")),
            )


def _rows(
    prefix: str,
    kind: str,
    number: np.ndarray,
    ra: np.ndarray,
    dec: np.ndarray,
    mag: np.ndarray,
    *,
    size: np.ndarray | None = None,
    redshift: np.ndarray | None = None,
) -> pa.Table:
    n = len(number)
    return pa.table(
        {
            "id": pa.array([f"{prefix}-{i}" for i in number], pa.string()),
            "ra": pa.array(ra, pa.float64()),
            "dec": pa.array(dec, pa.float64()),
            "class": pa.array([kind] * n, pa.string()),
            "mag": pa.array(mag.astype(np.float32)),
            "sizeArcsec": pa.nulls(n, pa.float32())
            if size is None
            else pa.array(size.astype(np.float32)),
            "redshift": pa.nulls(n, pa.float32())
            if redshift is None
            else pa.array(redshift.astype(np.float32)),
        }
    )


def write_truth(path: Path, night: str, tables: list[pa.Table]) -> Path:
    """Write a night's truth to `<path>/<night>.parquet`; return the file."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"{night}.parquet"
    pq.write_table(pa.concat_tables(tables) if tables else TRUTH.empty_table(), file)
    return file


def count_templates(settings: Settings) -> int:
    """Return how many templates a survey has."""
    return len(settings.fields) * settings.detectors * len(settings.bands)
