"""The objects of a data release: detections, sources and diaSources that are at one place."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.batch.catalogs import rows_of
from broker.batch.clusters import block_clusters, core_rows, join_parts
from broker.batch.release_steps import with_columns
from broker.catalog import install_catalog
from broker.catalog.healpix import pixels_of
from broker.detection.associate import associate
from broker.units import BANDS, separation_arcsec

_ALONE = 2
"""Sources within reach of each other that make a cluster."""


def merge_detections(
    detections: Sequence[pa.Table], *, order: int, radius_arcsec: float
) -> pa.Table:
    """Put the detections of all bands and tiles together to objects.

    Parameters
    ----------
    detections : sequence of pa.Table
        Of each coadd: columns band, ra, dec, raErr, decErr, snr, sizeRatio, flags.
    order : int
        HEALPix order of the tiles.
    radius_arcsec : float
        Detections this near are one. [arcsec]

    Returns
    -------
    pa.Table
        objectId (the HEALPix pixel of order 29 of its place), tile, ra, dec, their errors, the
        band and S/N of the best detection, whose place it is, the bands it was seen in, sizeRatio
        and flags; by objectId. Detections are taken by S/N, the highest first.
    """
    columns = ("band", "ra", "dec", "raErr", "decErr", "snr", "sizeRatio", "flags")
    if not detections:
        return _objects([], [], order)
    table = pa.concat_tables([d.select(columns) for d in detections])
    rows = table.to_pylist()
    rows.sort(key=lambda r: (-r["snr"], r["ra"], r["dec"]))
    best: list[dict[str, Any]] = []
    places: list[Any] = []
    bands: list[set[str]] = []
    cells: dict[tuple[int, int, int], list[int]] = {}
    size = np.radians(radius_arcsec / 3600.0)
    for row in rows:
        where = _unit(row["ra"], row["dec"])
        cell = tuple(int(v // size) for v in where)
        near = [
            k
            for dx in (-1, 0, 1)
            for dy in (-1, 0, 1)
            for dz in (-1, 0, 1)
            for k in cells.get((cell[0] + dx, cell[1] + dy, cell[2] + dz), ())
        ]
        gaps = [(float(np.linalg.norm(places[k] - where)), k) for k in near]
        gap, k = min(gaps, default=(np.inf, -1))
        if gap <= size:
            bands[k].add(row["band"])
            continue
        cells.setdefault((cell[0], cell[1], cell[2]), []).append(len(best))
        best.append(row)
        places.append(where)
        bands.append({row["band"]})
    return _objects(best, bands, order)


def _unit(ra: float, dec: float) -> Any:
    a, d = np.radians(ra), np.radians(dec)
    return np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _objects(best: Sequence[dict[str, Any]], bands: Sequence[set[str]], order: int) -> pa.Table:
    ra, dec = (np.array([row[n] for row in best], np.float64) for n in ("ra", "dec"))
    table = pa.table(
        {
            "objectId": pa.array(pixels_of(ra, dec).astype(np.int64)),
            "tile": pa.array(pixels_of(ra, dec, order).astype(np.int64)),
            "ra": ra,
            "dec": dec,
            "raErr": pa.array([row["raErr"] for row in best], pa.float32()),
            "decErr": pa.array([row["decErr"] for row in best], pa.float32()),
            "refBand": pa.array([row["band"] for row in best], pa.string()),
            "refSnr": pa.array([row["snr"] for row in best], pa.float32()),
            "bands": pa.array(["".join(b for b in BANDS if b in seen) for seen in bands]),
            "sizeRatio": pa.array([row["sizeRatio"] for row in best], pa.float32()),
            "flags": pa.array([row["flags"] for row in best], pa.int64()),
        }
    )
    return table.sort_by("objectId")


def cluster_sources(
    sources: pa.Table, objects: pa.Table, *, radius_arcsec: float
) -> tuple[pa.Table, pa.Table]:
    """Find which sources of several visits belong together, and what is at their place.

    Returns
    -------
    sources : pa.Table
        With `clusterId` (the least sourceId of its cluster; null for one that is alone) and
        `objectId` (the nearest Object within the radius) behind sourceId.
    clusters : pa.Table
        A row each: place, scatter, how many sources; mean flux, scatter and number by band.
    """
    ids, ra, dec = (sources[n].to_numpy() for n in ("sourceId", "ra", "dec"))
    labels = _labels(ids, ra, dec, 0.5 * radius_arcsec)
    cluster = np.full(len(ids), -1, np.int64)
    for label in np.unique(labels[labels >= 0]):
        mine = labels == label
        cluster[mine] = ids[mine].min()
    nearest = _nearest(ra, dec, objects, radius_arcsec)
    table = with_columns(
        sources,
        {
            "sourceId": sources["sourceId"],
            "clusterId": pa.array(cluster, mask=cluster < 0),
            "objectId": pa.array(nearest, mask=nearest < 0),
        },
    )
    return table, _cluster_table(table, cluster)


def _labels(ids: Any, ra: Any, dec: Any, radius_arcsec: float) -> Any:
    """Return the DBSCAN cluster of each position, -1 for none."""
    if len(ids) < _ALONE:
        return np.full(len(ids), -1, np.int64)
    with tempfile.TemporaryDirectory() as folder:
        table = pa.table({"id": [f"{i:020d}" for i in ids.tolist()], "ra": ra, "dec": dec})
        install_catalog(Path(folder), "reference", table, "1")
        rows = rows_of(Path(folder), "reference")
        n = len(rows)
        core = core_rows(rows, 0, n, radius=radius_arcsec, min_points=_ALONE)
        found = block_clusters(rows, 0, n, core, radius=radius_arcsec)
        answer = join_parts(found.part, found.links)
        by_id = dict(zip(rows.table["id"].to_pylist(), answer.tolist(), strict=True))
    return np.array([by_id[f"{i:020d}"] for i in ids.tolist()], np.int64)


def _nearest(ra: Any, dec: Any, objects: pa.Table, radius_arcsec: float) -> Any:
    """Return the identifier of the nearest object within a radius, -1 for none."""
    from scipy.spatial import cKDTree

    if len(objects) == 0 or len(ra) == 0:
        return np.full(len(ra), -1, np.int64)
    places = [objects[n].to_numpy() for n in ("ra", "dec")]
    tree = cKDTree(_vectors(*places))
    row = np.asarray(tree.query(_vectors(ra, dec))[1])
    apart = separation_arcsec(ra, dec, places[0][row], places[1][row])
    return np.where(apart <= radius_arcsec, objects["objectId"].to_numpy()[row], -1)


def _vectors(ra: Any, dec: Any) -> Any:
    a, d = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _cluster_table(sources: pa.Table, cluster: Any) -> pa.Table:
    values = {
        n: sources[n].to_numpy()
        for n in ("ra", "dec", "raErr", "decErr", "psfFlux", "psfFluxErr", "midpointMjdTai")
    }
    bands = np.array(sources["band"].to_pylist(), dtype=object)
    used = [b for b in BANDS if (bands == b).any()]
    rows = []
    for number in np.unique(cluster[cluster >= 0]):
        mine = np.flatnonzero(cluster == number)
        of_it = {n: v[mine] for n, v in values.items()}
        rows.append(_cluster_row(int(number), of_it, bands[mine], used))
    return pa.Table.from_pylist(rows, _cluster_schema(used))


def _cluster_schema(used: Sequence[str]) -> pa.Schema:
    fields = [("clusterId", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())]
    fields += [("scatterArcsec", pa.float32()), ("nSources", pa.int32())]
    fields += [("firstMjdTai", pa.float64()), ("lastMjdTai", pa.float64())]
    for b in used:
        fields += [(f"{b}_nSources", pa.int32()), (f"{b}_psfFluxMean", pa.float32())]
        fields += [(f"{b}_psfFluxMeanErr", pa.float32()), (f"{b}_psfFluxSigma", pa.float32())]
    return pa.schema(fields)


def _cluster_row(number: int, v: dict[str, Any], bands: Any, used: Sequence[str]) -> dict[str, Any]:
    ra, dec = _mean_place(v["ra"], v["dec"], v["raErr"], v["decErr"])
    apart = separation_arcsec(v["ra"], v["dec"], ra, dec)
    row: dict[str, Any] = {
        "clusterId": number,
        "ra": ra,
        "dec": dec,
        "scatterArcsec": float(np.sqrt(np.mean(np.square(apart)))),
        "nSources": len(v["ra"]),
        "firstMjdTai": float(v["midpointMjdTai"].min()),
        "lastMjdTai": float(v["midpointMjdTai"].max()),
    }
    for b in used:
        mine = bands == b
        n = int(mine.sum())
        row[f"{b}_nSources"] = n
        if n:
            flux = v["psfFlux"][mine].astype(float)
            weight = 1.0 / v["psfFluxErr"][mine].astype(float) ** 2
            row[f"{b}_psfFluxMean"] = float(np.average(flux, weights=weight))
            row[f"{b}_psfFluxMeanErr"] = float(weight.sum() ** -0.5)
        if n > 1:
            row[f"{b}_psfFluxSigma"] = float(np.std(flux, ddof=1))
    return row


def _mean_place(ra: Any, dec: Any, ra_err: Any, dec_err: Any) -> tuple[float, float]:
    variance = np.square(ra_err.astype(float)) + np.square(dec_err.astype(float))
    known = np.isfinite(variance) & (variance > 0.0)
    weight = np.where(known, 1.0 / np.maximum(variance, 1e-16), 1.0)
    x, y, z = (weight[:, None] * _vectors(ra, dec)).sum(axis=0)
    above = float(np.degrees(np.arctan2(z, np.hypot(x, y))))
    return float(np.degrees(np.arctan2(y, x)) % 360.0), above


def dia_objects(sources: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Give diaSources their diaObjects.

    Returns
    -------
    sources : pa.Table
        With `diaObjectId` in front.
    objects : pa.Table
        diaObjectId, ra, dec, nDiaSources, firstMjdTai, lastMjdTai, and the mean flux by band of
        its diaSources; by diaObjectId.
    """
    known = sources.slice(0, 0).append_column("diaObjectId", pa.array([], pa.int64()))
    found = associate(sources, known).dia_object_id
    table = with_columns(sources, {"diaObjectId": pa.array(found)})
    objects = _cluster_table(sources, found)
    renames = {"clusterId": "diaObjectId", "nSources": "nDiaSources"}
    names = [renames.get(n, n.replace("_nSources", "_nDiaSources")) for n in objects.column_names]
    return table, objects.rename_columns(names)
