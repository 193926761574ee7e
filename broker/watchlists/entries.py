"""What a watchlist watches, as people have it: positions, names, a part of the sky; checked."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import ConfigError

if TYPE_CHECKING:
    from broker.catalog.registry import Catalogs

MOST_ENTRIES = 1_000_000
"""Entries of one list."""

MOST_RADIUS_ARCSEC = 3600.0
"""Larger parts of the sky are regions."""

MOST_TOGETHER = 1000
"""Entries of one list whose circles may meet: more would make each alert in that place slow."""

MOST_RANGES = 200_000
"""Ranges of pixels that a region may consist of."""

MOST_OF_SKY = 0.25
"""Part of the sky that a region without an expression may cover."""

POSITIONS, NAMES, REGION = "positions", "names", "region"
KINDS = (POSITIONS, NAMES, REGION)

_RADIUS_NAMES = ("radius", "radiusarcsec", "radius_arcsec")
_ID_NAMES = ("id", "name", "objectid", "object_id", "diaobjectid")
_SHOWN = 5
_LONGEST_NAME = 200
_LONGEST_OBJECT = 64
_TEXT = ("", ".csv", ".tsv", ".txt", ".list")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Entries:
    """Checked entries of a list.

    Parameters
    ----------
    kind : str
        `positions` or `names`.
    table : pa.Table
        `id` (text); of positions also `ra`, `dec` [deg] and `radiusArcsec`.
    """

    kind: str
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)


class _Faults:
    """Collects what is wrong with lines, and says the first few."""

    def __init__(self) -> None:
        self.n, self._said = 0, list[str]()

    def add(self, place: str, what: str) -> None:
        self.n += 1
        if self.n <= _SHOWN:
            self._said.append(f"{place}: {what}")

    def check(self, source: str) -> None:
        if self.n:
            more = f"; and {self.n - _SHOWN} more" if self.n > _SHOWN else ""
            raise ConfigError(f"{source}: {'; '.join(self._said)}{more}", path=source)


def read_entries(
    given: Path | str, *, radius_arcsec: float = 2.0, source: str = "the list"
) -> Entries:
    """Read positions or names, from a file or from text.

    Parameters
    ----------
    given : Path or str
        A file (CSV or lines of words; Parquet, FITS, VOTable, ECSV), or text as of a CSV file.
        Columns `ra`, `dec` [deg] and, if there, `id` and `radius` [arcsec]; or one column, names.
    radius_arcsec : float
        Of positions that say none. [arcsec]
    source : str
        What errors call a text.

    Raises
    ------
    ConfigError
        If it cannot be read or an entry is not possible; the message names the lines.
    """
    check_radius(radius_arcsec)
    if isinstance(given, Path):
        source = given.name
        if given.suffix.lower() not in _TEXT:
            return _from_table(given, radius_arcsec)
        try:
            text = given.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{given} cannot be read: {error}", path=str(given)) from error
    else:
        text = given
    return _from_rows(_lines(text, source), radius_arcsec, source)


def check_radius(radius_arcsec: float) -> None:
    """Raise ConfigError if a radius is not allowed."""
    if not 0.0 < radius_arcsec <= MOST_RADIUS_ARCSEC:
        raise ConfigError(
            f"a radius of {radius_arcsec:g} arcsec is not allowed: more than 0, at most "
            f"{MOST_RADIUS_ARCSEC:g}; a larger part of the sky is given as a MOC"
        )


def _lines(text: str, source: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the cells of each line that has any, with its number in words."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    mark = next((c for c in ",\t;|" if c in first), "")
    try:
        if mark:
            reader = csv.reader(io.StringIO(text), delimiter=mark, strict=True)
            for cells in reader:
                if any(cells) and not cells[0].lstrip().startswith("#"):
                    yield f"line {reader.line_num}", [cell.strip() for cell in cells]
            return
    except csv.Error as error:
        raise ConfigError(f"{source}: line {reader.line_num}: {error}", path=source) from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"line {number}", line.split()


def _from_rows(rows: Iterator[tuple[str, list[str]]], radius_arcsec: float, source: str) -> Entries:
    place, head = next(rows, ("", []))
    if not head:
        raise ConfigError(f"{source} has no entries", path=source)
    low = [name.lower() for name in head]
    if "ra" in low and "dec" in low:
        return _positions(rows, low, radius_arcsec, source)
    if len(head) > 1:
        raise ConfigError(
            f"{source}: {place} must name the columns: id,ra,dec or id,ra,dec,radius (deg, "
            f"arcsec), or one column of names; it has {', '.join(head[:10])}",
            path=source,
        )
    first = () if low[0] in _ID_NAMES else ((place, head),)
    return _names((*first, *rows), source)


def _positions(
    rows: Iterator[tuple[str, list[str]]], head: Sequence[str], radius_arcsec: float, source: str
) -> Entries:
    at_ra, at_dec = head.index("ra"), head.index("dec")
    at_id = next((head.index(n) for n in _ID_NAMES if n in head), None)
    at_radius = next((head.index(n) for n in _RADIUS_NAMES if n in head), None)
    faults, seen = _Faults(), dict[str, str]()
    columns: tuple[list[float], ...] = ([], [], [])
    for number, (place, cells) in enumerate(rows, 1):
        if number > MOST_ENTRIES:
            raise ConfigError(f"{source} has more than {MOST_ENTRIES:,} entries", path=source)
        if len(cells) != len(head):
            faults.add(place, f"{len(cells)} values for {len(head)} columns")
            continue
        name = str(number) if at_id is None else cells[at_id]
        own = cells[at_radius] if at_radius is not None else ""
        values = (_number(cells[at_ra]), _number(cells[at_dec]),
                  _number(own) if own else radius_arcsec)  # fmt: skip
        if wrong := _wrong_name(name, seen) or _wrong_place(cells[at_ra], cells[at_dec], *values):
            faults.add(place, wrong)
            continue
        seen[name] = place
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    faults.check(source)
    return _made(list(seen), *columns, source=source)


def _made(
    ids: Sequence[str], ra: Sequence[float], dec: Sequence[float], radius: Sequence[float], *,
    source: str,
) -> Entries:  # fmt: skip
    if not ids:
        raise ConfigError(f"{source} has no entries", path=source)
    columns = {"id": pa.array(ids, pa.large_string()), "ra": pa.array(ra, pa.float64())}
    columns |= {"dec": pa.array(dec, pa.float64()), "radiusArcsec": pa.array(radius, pa.float64())}
    table = pa.table(columns)
    _check_crowd(table, source)
    return Entries(POSITIONS, table)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _wrong_name(name: str, seen: dict[str, str]) -> str:
    """Say what is wrong with an id; empty if nothing."""
    if not name:
        return "the id is empty"
    if len(name) > _LONGEST_NAME or _UNPRINTABLE.search(name):
        return f"an id is text of at most {_LONGEST_NAME} characters on one line"
    return f"id {name} is on {seen[name]} already" if name in seen else ""


def _wrong_place(ra_text: str, dec_text: str, ra: float, dec: float, radius: float) -> str:
    """Say what is wrong with a position; empty if nothing."""
    for name, text, value, low, high in (
        ("ra", ra_text, ra, 0.0, 360.0), ("dec", dec_text, dec, -90.0, 90.0),
    ):  # fmt: skip
        if math.isnan(value):
            return f"{name} {text[:30]!r} is no number; positions are in degrees"
        if not low <= value <= high:
            return f"{name} {value:g} is off the sky: {low:g} to {high:g} deg"
    if not 0.0 < radius <= MOST_RADIUS_ARCSEC:
        return f"the radius is more than 0 and at most {MOST_RADIUS_ARCSEC:g} arcsec"
    return ""


def _names(rows: Sequence[tuple[str, list[str]]], source: str) -> Entries:
    if len(rows) > MOST_ENTRIES:
        raise ConfigError(f"{source} has more than {MOST_ENTRIES:,} entries", path=source)
    faults, seen = _Faults(), dict[str, str]()
    for place, cells in rows:
        name = cells[0] if len(cells) == 1 else ""
        if wrong := f"{len(cells)} values for one name" if not name else _wrong_name(name, seen):
            faults.add(place, wrong)
        elif len(name.encode()) > _LONGEST_OBJECT:
            faults.add(place, f"no object has a name of more than {_LONGEST_OBJECT} bytes")
        else:
            seen[name] = place
    faults.check(source)
    if not seen:
        raise ConfigError(f"{source} has no entries", path=source)
    return Entries(NAMES, pa.table({"id": pa.array(list(seen), pa.large_string())}))


def _from_table(path: Path, radius_arcsec: float) -> Entries:
    from broker.catalog.source import read_file

    table, _ = read_file(path)
    if table.num_rows > MOST_ENTRIES:
        raise ConfigError(f"{path.name} has more than {MOST_ENTRIES:,} entries", path=str(path))
    low = [name.lower() for name in table.column_names]
    wanted = [n for n in (*_ID_NAMES, "ra", "dec", *_RADIUS_NAMES) if n in low]
    if "ra" not in wanted and not wanted:
        raise ConfigError(
            f"{path.name} has neither columns ra and dec nor a column of names ({_ID_NAMES[0]}); "
            f"it has {', '.join(table.column_names[:30])}",
            path=str(path),
        )
    columns = [table.column(low.index(name)).to_pylist() for name in wanted]
    texts = (
        (f"row {number}", ["" if value is None else str(value) for value in row])
        for number, row in enumerate(zip(*columns, strict=True), 1)
    )
    if "ra" in wanted and "dec" in wanted:
        return _positions(texts, wanted, radius_arcsec, path.name)
    return _names([(place, cells[:1]) for place, cells in texts], path.name)


def _check_crowd(table: pa.Table, source: str) -> None:
    """Refuse a list of which too many entries are to be compared with an alert in one place."""
    from broker.catalog.healpix import orders_for_radii, pixels_of

    ra, dec, radius = (table.column(n).to_numpy() for n in ("ra", "dec", "radiusArcsec"))
    pixels, orders = pixels_of(ra, dec), np.clip(orders_for_radii(radius), 0, 15)
    most = 0
    for order in np.unique(orders).tolist():
        cells = pixels[orders == order] >> np.uint64(2 * (29 - order))
        most = max(most, int(np.unique(cells, return_counts=True)[1].max()))
    if most > MOST_TOGETHER:
        raise ConfigError(
            f"{source}: {most} entries are so near to each other that their circles of up to "
            f"{radius.max():g} arcsec meet; at most {MOST_TOGETHER}. Take a smaller radius, or a "
            "MOC of the place",
            path=source,
        )


def resolved(entries: Entries, catalog: str, catalogs: "Catalogs", radius_arcsec: float) -> Entries:
    """Return the positions that names have in a reference catalogue.

    Raises
    ------
    ConfigError
        If the catalogue has no rows, or lacks a name.
    """
    rows = catalogs.rows(catalog)
    if rows is None:
        raise ConfigError(f"the catalogue {catalog} has no rows yet: `broker catalog add`")
    wanted = entries.table.column("id")
    at = pc.index_in(wanted, rows.table.column("id").cast(pa.large_string()))
    if at.null_count:
        missing = wanted.filter(pc.is_null(at)).slice(0, _SHOWN).to_pylist()
        raise ConfigError(
            f"{at.null_count} names are not in the catalogue {catalog}: {', '.join(missing)} …"
        )
    found = at.to_numpy()
    ra, dec = rows.ra[found].tolist(), rows.dec[found].tolist()
    radius = [radius_arcsec] * len(entries)
    return _made(wanted.to_pylist(), ra, dec, radius, source=f"the names in {catalog}")
