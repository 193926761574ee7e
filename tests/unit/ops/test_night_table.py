import pyarrow as pa
import pyarrow.parquet as pq

from broker.alerts.columns import CANONICAL, SCALARS, Column
from broker.ops.night_table import write_night_table
from broker.store.alerts import AlertStore, create_tables
from broker.store.memory import MemoryTables
from broker.types import Run, night_of

RISE = Column("riseRate", "float32", "nJy / d", "Slope.")
MATCH = Column("gaiaMatch", "int32", "", "Reading.")


def alerts(times):
    rows = [
        {
            "survey": "sim",
            "diaSourceId": str(i),
            "diaObjectId": f"o{i}",
            "isPublic": True,
            "midpointMjdTai": time,
            "ra": 10.0 + i,
            "dec": -5.0,
            "psfFlux": 100.0,
            "psfFluxErr": 2.0,
            "snr": 50.0,
            "isNegative": False,
            "isDipole": False,
            "flags": 0,
            "history": [],
            "origin": {"topic": "alerts.sim", "partition": 1, "offset": i, "schemaId": 7},
        }
        for i, time in enumerate(times)
    ]
    table = pa.Table.from_pylist(rows, CANONICAL)
    return table.append_column(
        pa.field("gaiaMatch", pa.int32()), pa.array([-1] * len(rows), pa.int32())
    )


def test_a_night_has_its_own_alerts_with_all_that_is_stored(tmp_path):
    tables, run = MemoryTables(), Run()
    create_tables(tables, run)
    store = AlertStore(tables, run)
    times = [61_000.49, 61_000.51, 61_001.49, 61_001.51]
    store.put(
        alerts(times),
        outputs=pa.table(
            {"rise_rate@1.0.0:riseRate": pa.array([1.0, 2.0, None, 4.0], pa.float32())}
        ),
        topics=[["a"], ["a", "b"], [], ["b"]],
        provenance={"code": "0"},
    )
    path = tmp_path / "nights" / "table.parquet"

    n = write_night_table(
        store,
        night_of(61_001.0),
        path,
        matches=[MATCH],
        outputs={"rise_rate@1.0.0:riseRate": RISE},
    )

    table = pq.read_table(path).sort_by("diaSourceId")
    assert n == table.num_rows == 2
    assert table["diaSourceId"].to_pylist() == ["1", "2"]
    assert table["rise_rate@1.0.0:riseRate"].to_pylist() == [2.0, None]
    assert table["topics"].to_pylist() == [["a", "b"], []]
    assert table["gaiaMatch"].to_pylist() == [-1, -1]
    assert [origins[0]["offset"] for origins in table["origins"].to_pylist()] == [1, 2]
    for column in SCALARS:
        assert table.schema.field(column.name).type == column.arrow_type
    assert list(path.parent.iterdir()) == [path]


def test_a_night_without_alerts_is_an_empty_table(tmp_path):
    tables, run = MemoryTables(), Run()
    create_tables(tables, run)

    assert write_night_table(AlertStore(tables, run), "20260101", tmp_path / "t.parquet") == 0
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 0
