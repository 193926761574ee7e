"""Catalogues as HATS folders, which LSDB and others open.

HATS is the IVOA note "Hierarchical Adaptive Tiling Scheme": Parquet files, one a HEALPix tile,
each with about as many rows, sorted by the pixel of order 29.
"""

import datetime
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from broker.catalog.definition import Definition
from broker.catalog.healpix import FINEST_ORDER, Pixels, neighbourhood, order_for_radius
from broker.catalog.partition import Rows
from broker.errors import ConfigError

HATS_PIXEL = "_healpix_29"

_FILES_A_DIRECTORY = 10_000
_FINEST_TILE = 18
_COLLECTION = "collection.properties"

Tile = tuple[int, int, int, int]
"""Order, pixel, first row and the one after the last."""


def tiles(pixels: Pixels, rows_per_file: int) -> list[Tile]:
    """Return tiles with at most so many rows each, as far as positions differ.

    Parameters
    ----------
    pixels : NDArray[np.uint64], shape (n_rows,)
        Pixels of order 29, sorted.
    rows_per_file : int
        A tile with more rows is divided in four.

    Returns
    -------
    list of tuple of int
        (order, pixel, first row, row after the last), no tile without rows, in the order of rows.
    """
    found: list[Tile] = []
    cells: NDArray[np.int64] = np.arange(12)
    for order in range(_FINEST_TILE + 1):
        shift = np.uint64(2 * (FINEST_ORDER - order))
        first = np.searchsorted(pixels, cells.astype(np.uint64) << shift)
        end = np.searchsorted(pixels, (cells + 1).astype(np.uint64) << shift)
        small = (end - first <= rows_per_file) | (order == _FINEST_TILE)
        found += [
            (order, int(cells[k]), int(first[k]), int(end[k]))
            for k in np.flatnonzero(small & (end > first)).tolist()
        ]
        cells = (4 * cells[~small][:, None] + np.arange(4)).ravel()
    return sorted(found, key=lambda tile: tile[2])


def export_hats(
    rows: Rows,
    definition: Definition,
    folder: Path,
    *,
    rows_per_file: int = 1_000_000,
    margin_arcsec: float = 0.0,
) -> int:
    """Write a catalogue as a HATS folder; with a margin, as a HATS collection.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    definition : Definition
        Its meaning: units and citation go along.
    folder : Path
        Made by this; there must be nothing yet.
    rows_per_file : int
        At most so many rows a Parquet file.
    margin_arcsec : float
        Each tile also gets, in a table of its own, all rows within this distance of it, and some
        farther ones, so that joins across borders of tiles are exact. [arcsec]

    Returns
    -------
    int
        Number of Parquet files, those of the margin not counted.

    Raises
    ------
    ConfigError
        If the folder exists, or the margin is wider than pixels of order 0 allow.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name a new folder", path=str(folder))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    order = np.argsort(rows.pixels, kind="stable")
    pixels = rows.pixels[order]
    table = _with_units(rows.entries, definition).take(pa.array(order))
    table = table.add_column(0, HATS_PIXEL, pa.array(pixels.astype(np.int64)))
    divided = tiles(pixels, rows_per_file)
    kind = {"hats_col_healpix": HATS_PIXEL, "hats_col_healpix_order": FINEST_ORDER}
    about = _properties(rows, definition) | {"dataproduct_type": "object", **kind}
    parts = [(tile, table.slice(first, end - first)) for tile, first, end in _spans(divided)]
    if margin_arcsec > 0.0:
        _write_collection(partial, table, pixels, divided, parts, about, margin_arcsec)
    else:
        _write_catalog(partial, table.schema, parts, about)
    partial.rename(folder)
    return len(divided)


def _spans(divided: list[Tile]) -> Iterator[tuple[tuple[int, int], int, int]]:
    for norder, npix, first, end in divided:
        yield (norder, npix), first, end


def _write_collection(
    folder: Path,
    table: pa.Table,
    pixels: Pixels,
    divided: list[Tile],
    parts: Sequence[tuple[tuple[int, int], pa.Table]],
    about: Mapping[str, Any],
    margin_arcsec: float,
) -> None:
    name = str(about["obs_collection"])
    margin = f"{name}_margin"
    _write_catalog(folder / name, table.schema, parts, about)
    around = [
        ((norder, npix), table.take(pa.array(near)))
        for (norder, npix, _, _), near in zip(
            divided, margins(pixels, divided, margin_arcsec), strict=True
        )
        if near.size
    ]
    said = {
        "obs_collection": margin,
        "dataproduct_type": "margin",
        "hats_primary_table_url": name,
        "hats_margin_threshold": margin_arcsec,
    }
    _write_catalog(folder / margin, table.schema, around, {**about, **said})
    collection = {
        "obs_collection": name,
        "hats_primary_table_url": name,
        "all_margins": margin,
        "default_margin": margin,
        "hats_builder": about["hats_builder"],
        "hats_version": about["hats_version"],
    }
    (folder / _COLLECTION).write_text(_lines(collection), encoding="utf-8")


def _write_catalog(
    folder: Path,
    schema: pa.Schema,
    parts: Sequence[tuple[tuple[int, int], pa.Table]],
    about: Mapping[str, Any],
) -> None:
    """Write one catalogue of a collection, or the only one."""
    (folder / "dataset").mkdir(parents=True)
    footers = list(_write_tiles(folder / "dataset", parts))
    pq.write_metadata(schema, folder / "dataset" / "_common_metadata")
    pq.write_metadata(schema, folder / "dataset" / "_metadata", footers)
    listed = "".join(f"{norder},{npix}\n" for (norder, npix), _ in parts)
    (folder / "partition_info.csv").write_text(f"Norder,Npix\n{listed}", encoding="utf-8")
    counts = {
        "hats_nrows": sum(part.num_rows for _, part in parts),
        "hats_order": max((norder for (norder, _), _ in parts), default=0),
    }
    for name in ("hats.properties", "properties"):  # the second for readers before HATS 1.0
        (folder / name).write_text(_lines({**about, **counts}), encoding="utf-8")


def margins(pixels: Pixels, divided: list[Tile], margin_arcsec: float) -> list[NDArray[np.int64]]:
    """Return for each tile the rows of other tiles that may be within a distance of it.

    Parameters
    ----------
    pixels : NDArray[np.uint64], shape (n_rows,)
        Pixels of order 29, sorted.
    divided : list
        As of `tiles`.
    margin_arcsec : float
        All rows within it are there, and some up to a few times as far. [arcsec]

    Raises
    ------
    ConfigError
        If no pixel is as wide.
    """
    order = order_for_radius(margin_arcsec)
    if order < 0:
        raise ConfigError(f"a margin of {margin_arcsec:g} arcsec is wider than any tile")
    shift = np.uint64(2 * (FINEST_ORDER - order))
    cells, begins = np.unique(pixels >> shift, return_index=True)
    begins = np.append(begins, pixels.size)  # rows of a cell are one run
    tile, cell = _cells_around(cells, order, divided).T
    found = []
    for k, (_, _, first_row, end_row) in enumerate(divided):
        mine = cell[np.searchsorted(tile, k) : np.searchsorted(tile, k, side="right")]
        near = _counted(begins[mine], begins[mine + 1])
        found.append(near[(near < first_row) | (near >= end_row)])
    return found


def _cells_around(cells: NDArray[Any], order: int, divided: list[Tile]) -> NDArray[np.int64]:
    """Return (tile, index of a cell that it touches or has), sorted, each pair once.

    Cells that are, with all their neighbours, in one tile are left out.
    """
    shift = np.uint64(2 * (FINEST_ORDER - order))
    width = np.uint64(1) << shift
    starts = np.array([np.uint64(p) << np.uint64(2 * (29 - o)) for o, p, _, _ in divided])
    ends = np.array([np.uint64(p + 1) << np.uint64(2 * (29 - o)) for o, p, _, _ in divided])
    begin = cells.astype(np.uint64) << shift
    own = np.minimum(np.searchsorted(ends, begin, side="right"), ends.size - 1)
    is_inside = (starts[own] <= begin) & (begin + width <= ends[own])
    pairs = []
    for column in neighbourhood(cells, order).T:
        cell = np.flatnonzero(column >= 0)
        low = column[cell].astype(np.uint64) << shift
        first = np.searchsorted(ends, low, side="right")
        last = np.searchsorted(starts, low + width, side="left")
        at_border = (last > first) & ~(is_inside[cell] & (first == own[cell]) & (last == first + 1))
        cell, first, last = cell[at_border], first[at_border], last[at_border]
        pairs.append(np.stack([_counted(first, last), np.repeat(cell, last - first)], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _counted(first: NDArray[Any], end: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of all ranges, one range after the other."""
    count = end - first
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + step


def _with_units(table: pa.Table, definition: Definition) -> pa.Table:
    units = {c.name: c.unit for c in definition.columns} | {"ra": "deg", "dec": "deg"}
    fields = [
        field.with_metadata({"unit": units[field.name]}) if units.get(field.name) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _write_tiles(
    folder: Path, parts: Sequence[tuple[tuple[int, int], pa.Table]]
) -> Iterator[pq.FileMetaData]:
    for (norder, npix), table in parts:
        directory = npix // _FILES_A_DIRECTORY * _FILES_A_DIRECTORY
        path = folder / f"Norder={norder}" / f"Dir={directory}" / f"Npix={npix}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        collected: list[pq.FileMetaData] = []
        with pq.ParquetWriter(
            path, table.schema, compression="zstd", metadata_collector=collected
        ) as out:
            out.write_table(table)
        collected[0].set_file_path(str(path.relative_to(folder)))
        yield collected[0]


def _properties(rows: Rows, definition: Definition) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "obs_collection": rows.name,
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_npix_suffix": ".parquet",
        "hats_version": "v1.0",
        "hats_builder": "nightjar-broker",
        "hats_creation_date": now.strftime("%Y-%m-%dT%H:%M UTC"),
        "hats_release_date": rows.version,
        "obs_description": definition.doc,
        "bib_reference": definition.citation,
        "moc_sky_fraction": f"{rows.coverage.fraction:.6g}",
    }


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in values.items() if value != "")


def is_hats(folder: Path) -> bool:
    """Return whether a folder is a HATS catalogue."""
    names = ("hats.properties", "properties", _COLLECTION)
    return any((folder / name).is_file() for name in names)


def read_hats(folder: Path) -> pa.Table:
    """Return all rows of a HATS catalogue or collection, its positions as `ra` and `dec`.

    Raises
    ------
    ConfigError
        If a Parquet file that it lists is not there, or has other columns.
    """
    if (folder / _COLLECTION).is_file():
        folder = folder / _read_properties(folder, _COLLECTION)["hats_primary_table_url"]
    name = "hats.properties" if (folder / "hats.properties").is_file() else "properties"
    values = _read_properties(folder, name)
    lines = (folder / "partition_info.csv").read_text(encoding="utf-8").split()
    names = lines[0].split(",")
    at = names.index("Norder"), names.index("Npix")
    parts = []
    for line in lines[1:]:
        norder, npix = (int(line.split(",")[k]) for k in at)
        directory = npix // _FILES_A_DIRECTORY * _FILES_A_DIRECTORY
        path = folder / "dataset" / f"Norder={norder}" / f"Dir={directory}" / f"Npix={npix}.parquet"
        parts.append(pq.read_table(path, partitioning=None))
    table = pa.concat_tables(parts)
    wanted = int(values.get("hats_nrows", table.num_rows))
    if table.num_rows != wanted:
        raise ConfigError(f"{folder} has {table.num_rows} rows and says {wanted}: it is not whole")
    renamed = {values.get("hats_col_ra", "ra"): "ra", values.get("hats_col_dec", "dec"): "dec"}
    if set(renamed.values()) & (set(table.column_names) - set(renamed)):
        return table
    return table.rename_columns([renamed.get(name, name) for name in table.column_names])


def _read_properties(folder: Path, name: str) -> Mapping[str, str]:
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}
