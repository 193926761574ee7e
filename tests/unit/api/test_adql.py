"""ADQL: what may be asked is rewritten, and what a query needs of the sky is known beforehand."""

import numpy as np
import pytest

from broker.api.errors import ApiError
from broker.api.tap.adql import statement_of

COLUMNS = frozenset({"ra", "dec", "midpointMjdTai", "night", "objectId"})
TABLES = {"broker.alerts": COLUMNS, "broker.objects": COLUMNS - {"midpointMjdTai", "night"}}


def made(query, most=10):
    return statement_of(query, tables=TABLES, most=most)


def limits(where, table="alerts AS a"):
    (reference,) = made(f"SELECT * FROM {table} WHERE {where}").references
    return reference.limits


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
        "SELECT 1; SELECT 2",
        "COPY alerts TO 'x'", "ATTACH 'x'", "PRAGMA x", "SET x = 1", "DROP TABLE alerts",
        "SELECT getenv('HOME')", "SELECT adql_distance(1, 2, 3, 4)", "SELECT * FROM view_0",
        "SELECT * FROM duckdb_settings()", "SELECT * INTO x FROM alerts", "", "SELECT 'x",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT n FROM t",
        "SELECT COUNT(*) FROM " + ", ".join(f"alerts AS a{i}" for i in range(40)),
    ],
)  # fmt: skip
def test_whatever_is_no_query_is_refused(query):
    with pytest.raises(ApiError) as refused:
        made(query)
    assert refused.value.status == 400


def test_rows_are_limited_by_the_query_or_by_what_is_read():
    assert made("SELECT TOP 5 ra FROM alerts").sql.endswith("LIMIT 5")
    assert made("SELECT TOP 50 ra FROM alerts").sql.endswith("LIMIT 10")
    assert made("SELECT ra FROM alerts UNION SELECT dec FROM alerts").sql.endswith("LIMIT 10")


@pytest.mark.parametrize(
    "where",
    [
        "CONTAINS(POINT('ICRS', a.ra, a.dec), CIRCLE('ICRS', 10, -20, 1/2.0)) = 1",
        "1 = CONTAINS(POINT(ra, dec), CIRCLE(POINT(10, -20), 0.5)) AND objectId > 'x'",
        "(INTERSECTS(CIRCLE(370, -20, 0.5), POINT(ra, dec)) = 1)",
        "DISTANCE(POINT(ra, dec), POINT(10, -20)) < 0.5", "0.5 >= DISTANCE(10, -20, a.ra, a.dec)",
        "CONTAINS(POINT(ra, dec), BOX(10, -20, 1, 1)) = 1",
    ],
)  # fmt: skip
def test_a_cone_is_known_before_rows_are_read(where):
    region = limits(where).region
    assert region is not None
    ra, dec = np.array([10.1, 12.0]), np.array([-20.1, -20.0])
    assert region.contains(ra, dec).tolist() == [True, False]
    assert (region.end - region.first).sum() < 12 * 4**29 / 5000


@pytest.mark.parametrize(
    "where",
    [
        "CONTAINS(POINT(ra, dec), CIRCLE(10, -20, 0.5)) = 0",
        "CONTAINS(POINT(ra, dec), CIRCLE(10, -20, 0.5)) = 1 OR ra > 3",
        "NOT CONTAINS(POINT(ra, dec), CIRCLE(10, -20, 0.5)) = 1",
        "CONTAINS(POINT(dec, ra), CIRCLE(10, -20, 0.5)) = 1",
        "DISTANCE(POINT(ra, dec), POINT(10, -20)) > 0.5",
        "CONTAINS(POINT(ra, dec), CIRCLE(dec, ra, 0.5)) = 1",
        "ra IN (SELECT 1 AS x WHERE CONTAINS(POINT(ra, dec), CIRCLE(1, 1, 1)) = 1)",
    ],
)
def test_what_does_not_hold_for_every_row_limits_nothing(where):
    assert limits(where).region is None


def test_times_and_nights_are_known_before_rows_are_read():
    found = limits("midpointMjdTai BETWEEN 61000 AND 61010.5 AND a.midpointMjdTai > 61002")
    assert found.mjd == (61002.0, 61010.5)
    assert limits("night = '20260301'").nights == ("20260301", "20260301")
    assert limits("'20260301' < night").nights == ("20260301", None)
    assert limits("objectId = 'x'").mjd == (None, None)


def test_each_of_two_tables_has_its_own_limits():
    found = made(
        "SELECT a.ra FROM alerts AS a LEFT JOIN alerts AS b ON a.objectId = b.objectId WHERE "
        "a.night > '20260301' AND night < '20270101' AND CONTAINS(POINT(b.ra, b.dec), "
        "CIRCLE(1, 1, 1)) = 1"
    ).references
    assert [one.limits.nights for one in found] == [("20260301", None), (None, None)]
    assert [one.limits.region is None for one in found] == [True, False]
