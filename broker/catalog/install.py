"""How rows are added to a catalogue: read, checked, sorted, and then there, all at once."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.catalog.coverage import Coverage, all_sky, coverage_of_rows
from broker.catalog.definition import (
    DEFINITION,
    MAP,
    ORBITS,
    Definition,
    definition_of,
    parse_definition,
)
from broker.catalog.elements import read_elements
from broker.catalog.healpix import Floats, on_sky
from broker.catalog.motion import mjd_of_year
from broker.catalog.partition import PIXEL, RADIUS, RANK, Rows, id_rank, sort_rows, write_rows
from broker.catalog.sky_map import map_coverage, read_map
from broker.catalog.source import read_file, read_source
from broker.errors import ConfigError
from broker.units import separation_arcsec

_TEXT = (".csv", ".tsv", ".ecsv")


def install_catalog(
    path: Path,
    name: str,
    rows: Path | pa.Table,
    version: str = "",
    *,
    definition: Path | None = None,
    coverage: Coverage | None = None,
) -> int:
    """Add the rows of a catalogue, or replace them by a new version.

    Running queries see the new version within a second, between two batches; a new catalogue,
    and new columns, from their next start.

    Parameters
    ----------
    path : Path
        Folder of all catalogues.
    name : str
        Its name; a defined catalogue if no definition is given.
    rows : Path or pa.Table
        A file (CSV, Parquet, FITS, VOTable, ECSV) or a table: positions and the attached columns
        as the definition says, named as on the wire or in snake_case; a column that is absent is
        null. Others are left out.
    version : str
        What stands as the catalogue's version in every match: letters, digits, `.`, `_`, `-`.
        Default the definition's.
    definition : Path, optional
        TOML file that says what the catalogue is; it is kept beside the rows.
    coverage : Coverage, optional
        Where the catalogue has looked; default as the definition says.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    ConfigError
        If there are no rows, an id or a place is missing or not possible, an id occurs twice, or
        a column cannot be read as its type. Nothing is changed then.
    """
    text = definition.read_text(encoding="utf-8") if definition else None
    what = parse_definition(name, text, str(definition)) if text else definition_of(name, path)
    version = version or what.version
    if not version:
        raise ConfigError(
            f"{name} has no version: give --version, or a key version in its definition",
            catalog=name,
        )
    if not all(c.isalnum() or c in "._-" for c in version):
        raise ConfigError(f"version {version!r} is not allowed: use letters, digits, . _ -")
    with _memory_of_the_c_library():
        made = _make(rows, what, version, coverage)
        _check_space(path, made)
        with _definition_kept(path / name, text):
            write_rows(path / name, made)
    return len(made)


@contextmanager
def _memory_of_the_c_library() -> Iterator[None]:
    """Let Arrow have it: pages of its own pool, given back and taken anew, cost a quarter more."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _make(rows: Path | pa.Table, what: Definition, version: str, coverage: Coverage | None) -> Rows:
    if isinstance(rows, Path) and rows.suffix.lower() in _TEXT and rows.is_file():
        _check_last_line(rows)
    if what.kind == MAP:
        if isinstance(rows, pa.Table):
            raise ConfigError(f"{what.name} is a map: it is added from a HEALPix FITS file")
        table = read_map(rows, what)
        covered = map_coverage(table, frame=what.positions.frame)
        return Rows(what.name, version, table.combine_chunks(), (), covered, kind=MAP)
    if what.kind == ORBITS:
        table, units = (rows, {}) if isinstance(rows, pa.Table) else read_file(rows)
        return _make_orbits(read_elements(table, units, what), what, version)
    table = read_source(rows, what)
    return _make_rows(_checked_rows(table, what), what, version, coverage)


def _check_last_line(path: Path) -> None:
    """Refuse text that ends within a line: half a number is a number too."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) not in b"\r\n":
            raise ConfigError(
                f"{path} cannot be read: its last line has no end, so it may be cut short. If it "
                "is whole, end that line",
                path=str(path),
            )


def _make_orbits(table: pa.Table, what: Definition, version: str) -> Rows:
    _check_present(table, what.name)
    table = _with_rank(table, what.name)
    table = table.append_column(RADIUS, pa.array(_radii(table, what)))
    return Rows(what.name, version, table.combine_chunks(), (), kind=ORBITS)


def _make_rows(table: pa.Table, what: Definition, version: str, coverage: Coverage | None) -> Rows:
    table, layers = sort_rows(table, _radii(table, what))
    if coverage is None:
        if what.coverage == "all-sky":
            coverage = all_sky()
        else:
            pixels = table.column(PIXEL).to_numpy()
            coverage = coverage_of_rows(pixels if len(layers) == 1 else np.sort(pixels))
    epoch = what.positions.epoch
    return Rows(
        what.name, version, table, layers, coverage, None if epoch is None else mjd_of_year(epoch)
    )


def remove_catalog(path: Path, name: str) -> None:
    """Remove a catalogue's rows, and its definition if it is not one of the package.

    Running queries read -1, not searched, from the next batch on.

    Raises
    ------
    ConfigError
        If there is no such catalogue.
    """
    definition_of(name, path)
    folder = path / name
    if not folder.is_dir():
        raise ConfigError(f"the catalogue {name} has no rows to remove", catalog=name)
    gone = path / f".{name}.removed.{os.getpid()}"
    folder.rename(gone)
    shutil.rmtree(gone)


@contextmanager
def _definition_kept(folder: Path, text: str | None) -> Iterator[None]:
    """Put a definition beside the rows that come; the one before is back if they do not come."""
    if not text:
        yield
        return
    file = folder / DEFINITION
    before = file.read_text(encoding="utf-8") if file.exists() else None
    _keep_definition(folder, text)
    try:
        yield
    except BaseException:
        if before is not None:
            _keep_definition(folder, before)
        else:
            file.unlink()
        raise


def _keep_definition(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{DEFINITION}.{os.getpid()}"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / DEFINITION)


def _check_space(path: Path, rows: Rows) -> None:
    path.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(path).free, int(rows.table.nbytes)
    if needed > 0.95 * free:
        raise ConfigError(
            f"{rows.name} needs {_size(needed)}; the disk of {path} has {_size(free)} left. Set "
            "catalog.path to a folder on a larger one",
            catalog=rows.name,
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 10**8 else f"{n_bytes / 1e6:.2f} MB"


def _check_present(table: pa.Table, name: str) -> None:
    if table.num_rows == 0:
        raise ConfigError(f"there are no rows to add to the catalogue {name}", catalog=name)
    if table.column("id").null_count:
        raise ConfigError(f"an entry of {name} has no id", catalog=name)


def _checked_rows(table: pa.Table, what: Definition) -> pa.Table:
    """Return rows with the rank of their ids; ConfigError for rows that cannot be entries."""
    name = what.name
    _check_present(table, name)
    ra, dec = (table.column(c).to_numpy() for c in ("ra", "dec"))
    bad = np.flatnonzero(~on_sky(ra, dec))
    if bad.size:
        row = int(bad[0])
        raise ConfigError(
            f"{bad.size} entries of {name} are not on the sky; the first is id "
            f"{table.column('id')[row]} at ({ra[row]}, {dec[row]}): 0 to 360 and -90 to 90 deg",
            catalog=name,
        )
    table = _with_rank(table, name)
    _check_known(table, ra, dec, what)
    return table


def _with_rank(table: pa.Table, name: str) -> pa.Table:
    """Return rows with the place of each id in the order of ids; ConfigError if one is twice."""
    rank = id_rank(table)
    counts = np.bincount(rank, minlength=1)
    if counts.max() > 1:
        twice = table.column("id")[int(np.argmax(rank == np.argmax(counts > 1)))]
        raise ConfigError(f"id {twice} occurs {counts[counts > 1][0]} times in {name}")
    return table.append_column(RANK, pa.array(rank))


def _check_known(table: pa.Table, ra: Floats, dec: Floats, what: Definition) -> None:
    """Hold an entry whose place is known against where the catalogue has it."""
    known = what.positions.known
    if known is None:
        return
    row = pc.index(table.column("id"), pa.scalar(str(known.id), pa.large_string())).as_py()
    if row < 0:
        raise ConfigError(f"{what.name} has no entry {known.id}, which positions.known names")
    away = float(separation_arcsec(known.ra, known.dec, ra[row], dec[row]))
    if away > known.within_arcsec:
        raise ConfigError(
            f"{what.name}: {known.id} should be at ({known.ra:g}, {known.dec:g}) and comes out at "
            f"({ra[row]:.5f}, {dec[row]:.5f}), {away:.0f} arcsec away: check positions.frame "
            f"({what.positions.frame}) and positions.unit ({what.positions.unit})",
            catalog=what.name,
        )


def _radii(table: pa.Table, definition: Definition) -> Floats:
    radius = np.full(table.num_rows, definition.radius_arcsec)
    if definition.class_column is not None:
        kind = table.column(definition.class_column).to_numpy()
        for name, value in definition.class_radii.items():
            radius[kind == name] = value
    if definition.radius_column is not None:
        own = pc.fill_null(table.column(definition.radius_column), 0.0).to_numpy()
        radius = np.fmax(radius, own.astype(np.float64) * definition.radius_factor)
    if not np.isfinite(radius).all():
        raise ConfigError(f"{definition.name}: {definition.radius_column} has an infinite value")
    return radius
