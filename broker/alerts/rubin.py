"""What packets with Rubin's names share: Rubin's own and ours."""

import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.adapter import LARGEST_FLUX_NJY, sql_all, sql_between
from broker.alerts.arrays import band_codes, child, floats
from broker.alerts.history import EARLIEST_MJD, LATEST_MJD, Epochs, entries, flat_list

EPOCH = pa.struct(
    [
        ("midpointMjdTai", pa.float64()),
        ("band", pa.string()),
        ("psfFlux", pa.float32()),
        ("psfFluxErr", pa.float32()),
    ]
)
"""What is used of an entry of `prvDiaSources` and `prvDiaForcedSources`."""


def valid_sql(survey: str) -> str:
    """Return what makes a decoded packet with Rubin's names usable, as SQL."""
    source = f"{survey}.diaSource"
    return sql_all(
        f"coalesce({source}.diaSourceId != 0, false)",
        sql_between(f"{source}.ra", 0.0, 360.0),
        sql_between(f"{source}.dec", -90.0, 90.0),
        sql_between(f"{source}.midpointMjdTai", EARLIEST_MJD, LATEST_MJD),
        sql_between(f"{source}.psfFlux", -LARGEST_FLUX_NJY, LARGEST_FLUX_NJY),
        sql_between(f"{source}.psfFluxErr", 0.0, LARGEST_FLUX_NJY),
        f"{source}.psfFluxErr != 0",
    )


def epochs(lists: pa.ListArray, kind: int) -> Epochs:
    """Return the entries of `prvDiaSources` or `prvDiaForcedSources`."""
    alert, entry = flat_list(lists)
    return entries(
        alert,
        floats(child(entry, "midpointMjdTai")),
        band=band_codes(child(entry, "band")),
        flux=floats(child(entry, "psfFlux")),
        flux_err=floats(child(entry, "psfFluxErr")),
        is_public=True,
        kind=kind,
    )


def identifier(values: pa.Array) -> pa.Array:
    """Return ids as strings; 0 means none."""
    return pc.if_else(pc.equal(values, 0), None, values).cast(pa.string())
