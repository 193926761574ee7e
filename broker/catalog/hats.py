"""Catalogues as HATS folders, which LSDB and others open.

HATS is the IVOA note "Hierarchical Adaptive Tiling Scheme": Parquet files, one a HEALPix tile,
each with about as many rows, sorted by the pixel of order 29.
"""

import datetime
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from broker.catalog.definition import Definition
from broker.catalog.healpix import FINEST_ORDER, Pixels
from broker.catalog.partition import Rows
from broker.errors import ConfigError

HATS_PIXEL = "_healpix_29"

_FILES_A_DIRECTORY = 10_000
_FINEST_TILE = 18


def tiles(pixels: Pixels, rows_per_file: int) -> list[tuple[int, int, int, int]]:
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
    found: list[tuple[int, int, int, int]] = []
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
    rows: Rows, definition: Definition, folder: Path, *, rows_per_file: int = 1_000_000
) -> int:
    """Write a catalogue as a HATS folder.

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

    Returns
    -------
    int
        Number of Parquet files.

    Raises
    ------
    ConfigError
        If the folder exists.
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
    footers = list(_write_tiles(partial / "dataset", table, divided))
    pq.write_metadata(table.schema, partial / "dataset" / "_common_metadata")
    pq.write_metadata(table.schema, partial / "dataset" / "_metadata", footers)
    listed = "".join(f"{norder},{npix}\n" for norder, npix, _, _ in divided)
    (partial / "partition_info.csv").write_text(f"Norder,Npix\n{listed}", encoding="utf-8")
    for name in ("hats.properties", "properties"):  # the second for readers before HATS 1.0
        (partial / name).write_text(_properties(rows, definition, divided), encoding="utf-8")
    partial.rename(folder)
    return len(divided)


def _with_units(table: pa.Table, definition: Definition) -> pa.Table:
    units = {c.name: c.unit for c in definition.columns} | {"ra": "deg", "dec": "deg"}
    fields = [
        field.with_metadata({"unit": units[field.name]}) if units.get(field.name) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _write_tiles(
    folder: Path, table: pa.Table, divided: list[tuple[int, int, int, int]]
) -> Iterator[pq.FileMetaData]:
    for norder, npix, first, end in divided:
        directory = npix // _FILES_A_DIRECTORY * _FILES_A_DIRECTORY
        path = folder / f"Norder={norder}" / f"Dir={directory}" / f"Npix={npix}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        collected: list[pq.FileMetaData] = []
        with pq.ParquetWriter(
            path, table.schema, compression="zstd", metadata_collector=collected
        ) as out:
            out.write_table(table.slice(first, end - first))
        collected[0].set_file_path(str(path.relative_to(folder)))
        yield collected[0]


def _properties(
    rows: Rows, definition: Definition, divided: list[tuple[int, int, int, int]]
) -> str:
    now = datetime.datetime.now(datetime.UTC)
    values = {
        "obs_collection": rows.name,
        "dataproduct_type": "object",
        "hats_nrows": len(rows),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": HATS_PIXEL,
        "hats_col_healpix_order": FINEST_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_order": max(order for order, _, _, _ in divided),
        "hats_version": "v1.0",
        "hats_builder": "nightjar-broker",
        "hats_creation_date": now.strftime("%Y-%m-%dT%H:%M UTC"),
        "hats_release_date": rows.version,
        "obs_description": definition.doc,
        "bib_reference": definition.citation,
        "moc_sky_fraction": f"{rows.coverage.fraction:.6g}",
    }
    return "".join(f"{key} = {value}\n" for key, value in values.items() if value != "")


def is_hats(folder: Path) -> bool:
    """Return whether a folder is a HATS catalogue."""
    return any((folder / name).is_file() for name in ("hats.properties", "properties"))


def read_hats(folder: Path) -> pa.Table:
    """Return all rows of a HATS catalogue, its positions as `ra` and `dec`.

    Raises
    ------
    ConfigError
        If a Parquet file that it lists is not there, or has other columns.
    """
    values = _read_properties(folder)
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


def _read_properties(folder: Path) -> Mapping[str, str]:
    name = "hats.properties" if (folder / "hats.properties").is_file() else "properties"
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}
