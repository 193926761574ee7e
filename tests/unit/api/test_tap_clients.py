"""TAP as pyvo sees it, an independent client, over HTTP."""

import threading
import time

import numpy as np
import pytest
import pyvo
import serving
import uvicorn

from broker.api import make_app
from broker.api.tap import add_tap, asking
from broker.units import separation_arcsec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(many):
    app = make_app(many.sources, requests_per_s=1e6, burst=1_000_000)
    jobs = add_tap(app)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True, name="tap-test-server")
    thread.start()
    deadline = time.monotonic() + 60.0
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield pyvo.dal.TAPService(f"http://127.0.0.1:{port}/tap")
    server.should_exit = True
    thread.join(timeout=60)
    jobs.close()


CONE = (
    "SELECT diaSourceId, ra, dec, mag, nDiaSources FROM broker.alerts WHERE "
    "CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 359.8, 0.5, 1.2)) = 1"
)


def in_cone(many):
    return sorted(
        alert["diaSourceId"]
        for alert in many.store.every()
        if alert["isPublic"] and separation_arcsec(359.8, 0.5, alert["ra"], alert["dec"]) <= 4320.0
    )


def test_a_cone_asked_at_once_and_as_a_job_is_what_brute_force_finds(service, many):
    wanted = in_cone(many)
    assert len(wanted) > 5

    soon = service.search(CONE).to_table()
    later = service.run_async(CONE).to_table()

    assert sorted(soon["diaSourceId"]) == wanted
    assert sorted(later["diaSourceId"]) == wanted
    assert soon["ra"].unit == "deg"
    assert soon["ra"].dtype == np.float64
    known = {a["diaSourceId"]: a for a in many.store.every()}
    for row in soon:
        assert row["ra"] == known[row["diaSourceId"]]["ra"]
        assert (row["mag"] is np.ma.masked) == (known[row["diaSourceId"]]["psfFlux"] <= 0)


def test_an_id_of_64_bits_and_null_survive(service):
    found = service.search(
        f"SELECT objectId, reliability FROM broker.objects WHERE objectId IN ('{serving.BIG}', "
        "'across') ORDER BY objectId"
    ).to_table()
    assert list(found["objectId"]) == [serving.BIG, "across"]
    assert found["reliability"][0] == 0.5
    assert found["reliability"].mask[1] or np.isnan(found["reliability"][1])


def test_the_tables_and_what_the_service_can_do_are_read(service):
    assert {"broker.objects", "broker.alerts", "tap_schema.tables"} <= set(service.tables.keys())
    columns = {column.name: column for column in service.tables["broker.objects"].columns}
    assert columns["ra"].unit == "deg"
    assert columns["ra"].ucd == "pos.eq.ra;meta.main"
    assert service.maxrec == 10_000
    assert service.hardlimit == 100_000
    assert len(service.examples) == 3


def test_a_job_that_is_held_deleted_or_wrong_is_told_as_the_standard_says(service):
    job = service.submit_job("SELECT TOP 2 ra FROM broker.alerts")
    assert job.phase == "PENDING"
    job.execution_duration = 20
    assert job.run().wait(timeout=60.0).phase == "COMPLETED"
    assert len(job.fetch_result()) == 2
    job.delete()

    wrong = service.submit_job("SELECT nothing FROM broker.alerts").run()
    wrong.wait(timeout=60.0)
    with pytest.raises(pyvo.dal.DALQueryError, match="nothing"):
        wrong.raise_if_error()
    with pytest.raises(pyvo.dal.DALQueryError, match="there is no table"):
        service.search("SELECT * FROM elsewhere")


def test_rows_that_were_cut_off_are_warned_of(service, monkeypatch):
    assert service.search("SELECT ra FROM broker.alerts", maxrec=3).status[0] == "OVERFLOW"
    assert service.search("SELECT TOP 3 ra FROM broker.alerts", maxrec=3).status[0] == "OK"

    monkeypatch.setattr(asking, "DEFAULT_ROWS", 3)
    with pytest.warns(pyvo.dal.exceptions.DALOverflowWarning):
        assert len(service.search("SELECT ra FROM broker.alerts")) == 3
