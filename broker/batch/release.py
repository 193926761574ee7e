"""A data release: a season of reduced images as coadds, catalogues and light curves.

Two branches, as in surveys: the static sky (coadds, Object, ForcedSource, clusters of Source) and
what changes (difference images, DiaSource, DiaObject, DiaForcedSource). Work on single images and
tiles is `release_steps`; here it is handed out and put together, always in the same order, so the
same images give the same bytes on any number of machines.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker import __version__
from broker.batch import release_steps as steps
from broker.batch.release_objects import cluster_sources, dia_objects, merge_detections
from broker.batch.release_steps import Entry, Visit
from broker.errors import AlertError
from broker.imaging.tables import write_table
from broker.types import night_of
from broker.units import BANDS

ENDINGS = (".parquet", ".csv")
_README = """# Data release

{images} images of {visits} visits in the bands {bands}, {nights} nights; made by nightjar-broker
{version}. `provenance.json` has inputs with their SHA-256, settings and software; `SHA256SUMS` the
sums of these files. Positions are ICRS [deg], fluxes AB [nJy], times MJD TAI [d].

| table | rows | what |
|---|---|---|
{rows}

`coadds/<tile>-<band>.fits`: image, variance and mask; a tile is a HEALPix pixel of order {order}.
`differences/<visit>-<detector>.fits`: each image minus a template of other nights' images of its
band. `psf/<visit>-<detector>.fits`: nine stamps of the PSF, at the middle and towards the borders.
"""
_WHAT = {
    "Object": "sources on the coadds, all bands put together; `g_psfFlux`… on the coadd of a band",
    "Source": "sources of every image; `objectId` and `clusterId` where it belongs to one",
    "SourceCluster": "sources of several visits at one place: mean flux and scatter by band",
    "BadSource": "sources of Source's kind that cannot be trusted, with `reason`",
    "ForcedSource": "flux at every Object in every image that covers it, seen there or not",
    "DiaSource": "sources of difference images",
    "BadDiaSource": "those that cannot be trusted, with `reason`",
    "DiaObject": "what varies: diaSources at one place",
    "DiaForcedSource": "flux at every DiaObject in every difference image that covers it",
    "Psf": "the PSF of every image: width and its change towards the borders",
}


@dataclass(frozen=True)
class ReleaseSettings:
    """What can be chosen.

    Parameters
    ----------
    tile_order : int
        HEALPix order of a tile; 9 is 6.9 arcmin.
    radius_arcsec : float
        Detections nearer than this are one object. [arcsec]
    """

    tile_order: int = 9
    radius_arcsec: float = 1.0


@dataclass(frozen=True)
class Release:
    """What was made.

    Parameters
    ----------
    images : int
    tables : dict
        Rows by table.
    problems : list of dict
        `path` and `reason` of what was not used.
    """

    images: int
    tables: dict[str, int]
    problems: list[dict[str, str]] = field(default_factory=list)


def make_release(
    files: Sequence[Path],
    out: Path,
    *,
    settings: ReleaseSettings | None = None,
    spark: Any = None,
    advance: Callable[[int], object] = lambda n: n,
) -> Release:
    """Make a data release of reduced images.

    Parameters
    ----------
    files : sequence of Path
        With visit, band, time, zero point and WCS in their headers.
    out : Path
        Folder of the release.
    settings : ReleaseSettings, optional
    spark : SparkSession, optional
        Does the work on images and tiles; without it, this process does.
    advance : callable
        Called with 1 after each step.

    Raises
    ------
    AlertError
        If no image can be used.
    """
    chosen, out = settings or ReleaseSettings(), out.resolve()
    season = _Season(chosen, out, spark)
    tables = season.visits(sorted(files))
    advance(1)
    for step in (season.static_sky, season.forced, season.changes):
        tables |= step(tables)
        advance(1)
    for name, table in tables.items():
        for ending in ENDINGS:
            write_table(out / f"{name}{ending}", table)
    write_table(out / "Psf.fits", tables["Psf"])
    _write_papers(season, tables)
    advance(1)
    return Release(len(season.entries), {n: len(t) for n, t in tables.items()}, season.problems)


class _Season:
    """The images of a release and its steps, in the order of `make_release`."""

    def __init__(self, settings: ReleaseSettings, out: Path, spark: Any) -> None:
        self.settings, self.out, self._spark = settings, out, spark
        self.entries: list[Entry] = []
        self.problems: list[dict[str, str]] = []

    def each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return what work makes of items, in their order."""
        todo = list(items)
        if self._spark is None or not todo:
            return [work(item) for item in todo]
        # Few tasks: each costs Spark a tenth of a second.
        context = self._spark.sparkContext
        n = min(len(todo), 8 * int(context.defaultParallelism))
        return list(context.parallelize(todo, n).map(work).collect())

    def visits(self, files: Sequence[Path]) -> dict[str, pa.Table]:
        """Find the sources of each image and its PSF."""
        found: list[Visit] = []
        places: set[str] = set()
        for several in self.each(steps.characterize, [str(f) for f in files]):
            for one in several:
                if isinstance(one, Visit) and one.entry.name not in places:
                    places.add(one.entry.name)
                    found.append(one)
                elif isinstance(one, Visit):
                    self._problem(one.entry.path, f"visit and detector {one.entry.name} again")
                else:
                    self._problem(*one)
        if not found:
            first = self.problems[0]["reason"] if self.problems else "there is none"
            raise AlertError(f"none of {len(files)} files can be used: {first}")
        found.sort(key=lambda v: (v.entry.midpoint_mjd_tai, v.entry.visit, v.entry.detector))
        self.entries = [v.entry for v in found]
        good, bad = steps.split_bad(pa.concat_tables([v.sources for v in found]))
        for one in found:
            steps.write_psf(self.out / "psf" / f"{one.entry.name}.fits", one.psf)
        return {
            "Source": good,
            "BadSource": bad,
            "Psf": pa.Table.from_pylist([v.psf for v in found]),
        }

    def _problem(self, path: str, reason: str) -> None:
        self.problems.append({"path": path, "reason": reason})

    def static_sky(self, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        """Make the coadds, the objects on them, and the clusters of sources."""
        order = self.settings.tile_order
        groups: dict[tuple[int, str], list[Entry]] = {}
        for entry in self.entries:
            for tile in steps.tiles_of(entry, order):
                groups.setdefault((tile, entry.band), []).append(entry)
        tasks = [
            (tile, order, band, groups[tile, band], str(self._coadd(tile, band)))
            for tile, band in sorted(groups, key=lambda key: (key[0], BANDS.index(key[1])))
        ]
        detections = [t for t in self.each(steps.make_coadd, tasks) if len(t)]
        objects = merge_detections(
            detections, order=order, radius_arcsec=self.settings.radius_arcsec
        )
        objects = self._with_fluxes(objects, sorted(groups))
        sources, clusters = cluster_sources(
            tables["Source"], objects, radius_arcsec=self.settings.radius_arcsec
        )
        return {"Object": objects, "Source": sources, "SourceCluster": clusters}

    def _coadd(self, tile: int, band: str) -> Path:
        return self.out / "coadds" / f"{tile}-{band}.fits"

    def _with_fluxes(self, objects: pa.Table, groups: Sequence[tuple[int, str]]) -> pa.Table:
        """Measure every object on the coadds of its tile in all bands."""
        tile, ra, dec = (objects[n].to_numpy() for n in ("tile", "ra", "dec"))
        tasks, rows = [], []
        for number, band in groups:
            mine = np.flatnonzero(tile == number)
            tasks.append((str(self._coadd(number, band)), ra[mine], dec[mine]))
            rows.append((band, mine))
        measured = self.each(steps.forced_on_coadd, tasks)
        for band in [b for b in BANDS if any(b == r[0] for r in rows)]:
            flux, error = np.full(len(tile), np.nan), np.full(len(tile), np.nan)
            for (b, mine), (f, e) in zip(rows, measured, strict=True):
                if b == band:
                    flux[mine], error[mine] = f, e
            for name, values in (("psfFlux", flux), ("psfFluxErr", error)):
                column = pa.array(values, pa.float32(), from_pandas=True)
                objects = objects.append_column(f"{band}_{name}", column)
        return objects

    def forced(self, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        """Measure every object in every image."""
        places = _places(tables["Object"], "objectId")
        made = self.each(steps.forced_on_image, [(e, *places) for e in self.entries])
        table = pa.concat_tables(made)
        return {"ForcedSource": table.rename_columns(["objectId", *table.column_names[1:]])}

    def changes(self, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:  # noqa: ARG002
        """Subtract templates, find what changed, and follow it through all images."""
        paths = {e.name: str(self.out / "differences" / f"{e.name}.fits") for e in self.entries}
        tasks = [
            (e, steps.template_entries(e, self.entries, night_of), paths[e.name])
            for e in self.entries
        ]
        made = self.each(steps.difference, tasks)
        differenced = []
        for entry, result in zip(self.entries, made, strict=True):
            if isinstance(result, str):
                self._problem(entry.path, f"not differenced: {result}")
            else:
                differenced.append((entry, result))
        if not differenced:
            return {}
        good, bad = steps.split_bad(pa.concat_tables([t for _, t in differenced]))
        good, objects = dia_objects(good)
        places = _places(objects, "diaObjectId")
        forced = self.each(
            steps.forced_on_difference, [(e, paths[e.name], *places) for e, _ in differenced]
        )
        table = pa.concat_tables(forced)
        return {
            "DiaSource": good,
            "BadDiaSource": bad,
            "DiaObject": objects,
            "DiaForcedSource": table.rename_columns(["diaObjectId", *table.column_names[1:]]),
        }


def _places(table: pa.Table, identifier: str) -> tuple[Any, Any, Any]:
    ids, ra, dec = (table[n].to_numpy() for n in (identifier, "ra", "dec"))
    return ids, ra, dec


def _write_papers(season: _Season, tables: dict[str, pa.Table]) -> None:
    """Write README.md, provenance.json and SHA256SUMS: no clock is in them."""
    out, entries = season.out, season.entries
    used = {e.path: _sum(Path(e.path)) for e in entries}
    provenance = {
        "software": {
            "nightjar-broker": __version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "python": platform.python_version(),
        },
        "settings": vars(season.settings),
        "inputs": [
            {"file": Path(e.path).name, "frame": e.frame, "image": e.name, "sha256": used[e.path]}
            for e in entries
        ],
        "notUsed": [{"file": Path(p["path"]).name, "reason": p["reason"]} for p in season.problems],
        "tables": {name: len(table) for name, table in tables.items()},
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    text = _README.format(
        images=len(entries),
        visits=len({e.visit for e in entries}),
        bands=" ".join(b for b in BANDS if any(e.band == b for e in entries)),
        nights=len({night_of(e.midpoint_mjd_tai) for e in entries}),
        version=__version__,
        order=season.settings.tile_order,
        rows="\n".join(f"| {n} | {len(tables[n])} | {_WHAT[n]} |" for n in _WHAT if n in tables),
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    names = sorted(
        p.relative_to(out).as_posix()
        for p in out.rglob("*")
        if p.is_file() and p.name != "SHA256SUMS"
    )
    lines = [f"{_sum(out / name)}  {name}\n" for name in names]
    (out / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
