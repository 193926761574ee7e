"""A transfer has exactly what was asked for, in four formats, and nothing that is not public."""

import threading
import time

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import uvicorn
from astropy.table import Table
from fastapi import FastAPI

from broker.api import make_app
from broker.api.transfer import add_transfers
from broker.archive import Archive
from broker.batch.transfer import Question, in_cones
from broker.batch.transfer_estimate import estimate
from broker.batch.transfer_folder import Transfers
from broker.batch.transfer_job import make_part
from broker.batch.transfer_verify import verify_folder
from broker.client.download import download
from broker.errors import AlertError, ConfigError, ServiceError
from broker.types import Run
from broker.units import separation_arcsec

RUN, ROWS = "moved", 600
NIGHT, NEXT = "20251110", "20251111"
ASKED = ("survey", "diaSourceId", "ra", "dec", "snr", "riseRate", "isHostless", "topics")


def night_table(seed, more=()):
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, ROWS)
    rate = [None if r < 0.3 else float(r) for r in rng.random(ROWS)]
    columns = {
        "survey": pa.array(np.where(rng.random(ROWS) < 0.5, "ztf", "sim")),
        "diaSourceId": pa.array([str(2**62 + seed * ROWS + i) for i in range(ROWS)]),
        "isPublic": pa.array(rng.random(ROWS) < 0.8),
        "ra": pa.array(rng.uniform(0, 360, ROWS)),
        "dec": pa.array(np.degrees(np.arcsin(z))),
        "snr": pa.array(rng.uniform(0, 30, ROWS), pa.float32()),
        "rise_rate@1.0.0:riseRate": pa.array(rate, pa.float32()),
        "hostless@1.0.0:isHostless": pa.array([None, True, False] * (ROWS // 3)),
        "topics": pa.array([["a"], [], ["a", "b"]] * (ROWS // 3)),
        "origins": pa.array([[]] * ROWS, pa.list_(pa.struct([("topic", pa.string())]))),
    }
    for name in more:
        columns[name] = pa.array(rng.random(ROWS), pa.float32())
    return pa.table(columns)


@pytest.fixture
def transfers(tmp_path):
    nights = tmp_path / "nights"
    nights.mkdir()
    pq.write_table(night_table(1), nights / f"{NIGHT}.parquet", row_group_size=100)
    pq.write_table(night_table(2, ["fwhm"]), nights / f"{NEXT}.parquet", row_group_size=100)
    return Transfers(tmp_path / "transfers", nights, RUN)


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "archive", Run(RUN))


def made(transfers, archive, question, only=None):
    """Make a transfer, or only some of its parts."""
    transfer = transfers.open(transfers.add(question))
    plan, nights = transfer.opened()
    tasks = transfer.tasks(nights)
    for task in tasks[:only]:
        make_part(transfer, plan, archive, *task)
    if only is None:
        transfer.finish(plan, tasks)
    return transfer


def expected(where, nights=(1,)):
    """Return the ids of rows that a plain loop over dicts chooses."""
    rows = [row for seed in nights for row in night_table(seed).to_pylist()]
    return [r["diaSourceId"] for r in rows if r["isPublic"] and where(r)]


READ = {
    "parquet": lambda path: pq.read_table(path).to_pylist(),
    "avro": lambda path: list(fastavro.reader(path.open("rb"))),
    "csv": lambda path: pa_csv.read_csv(
        path, convert_options=pa_csv.ConvertOptions(column_types={"diaSourceId": pa.string()})
    ).to_pylist(),
    "fits": lambda path: [
        {n: None if np.ma.is_masked(r[n]) else r[n] for n in r.colnames} for r in Table.read(path)
    ],
}


@pytest.mark.parametrize("form", ["parquet", "avro", "csv", "fits"])
def test_each_format_has_the_rows_that_a_plain_loop_chooses(transfers, archive, form):
    where = "snr > 10 AND (rise_rate < 0.8 OR is_hostless)"
    question = Question(NIGHT, NIGHT, ("ztf",), ("a",), where, columns=ASKED, form=form)

    transfer = made(transfers, archive, question)

    rows = [row for part in transfer.parts() for row in READ[form](transfer.folder / part)]
    assert [str(row["diaSourceId"]) for row in rows] == expected(
        lambda r: (
            r["survey"] == "ztf"
            and "a" in r["topics"]
            and r["snr"] > 10
            and (
                bool(r["hostless@1.0.0:isHostless"]) or (r["rise_rate@1.0.0:riseRate"] or 1.0) < 0.8
            )
        )
    )
    truth = {r["diaSourceId"]: r for r in night_table(1).to_pylist()}
    for row in rows:
        one = truth[str(row["diaSourceId"])]
        rate, hostless = one["rise_rate@1.0.0:riseRate"], one["hostless@1.0.0:isHostless"]
        is_null = row["riseRate"] is None or np.isnan(row["riseRate"])
        assert is_null if rate is None else row["riseRate"] == pytest.approx(rate, rel=1e-6)
        assert row["isHostless"] == hostless
    assert list(rows[0]) == list(ASKED)
    assert transfer.manifest()["alerts"] == len(rows) > 20


def test_cones_choose_what_lies_within_them_also_at_poles_and_ra_0():
    rng = np.random.default_rng(5)
    ra = np.concatenate([rng.uniform(0, 360, 500), [359.999, 0.001, 120.0, 300.0]])
    dec = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, 500))), [0, 0, 89.999, -89.999]])
    cones = [(0.0, 0.0, 10.0), (10.0, 90.0, 30.0), (77.0, -90.0, 3.61), (200.0, 40.0, 36000.0)]

    found = in_cones(ra, dec, cones)

    within = [separation_arcsec(ra, dec, a, d) <= radius for a, d, radius in cones]
    assert (found == np.any(within, axis=0)).all()
    assert found[-4:].all()
    assert 4 < found.sum() < len(ra)


def test_alerts_that_are_not_public_never_leave(transfers, archive):
    for question in (Question(NIGHT, NEXT), Question(NIGHT, NEXT, where="NOT is_public")):
        transfer = made(transfers, archive, question)
        parts = [READ["parquet"](transfer.folder / part) for part in transfer.parts()]
        ids = [row["diaSourceId"] for rows in parts for row in rows]
        assert ids == (expected(lambda r: True, (1, 2)) if not question.where else [])


def test_a_night_that_lacks_a_column_has_nulls_and_all_files_the_same_columns(transfers, archive):
    transfer = made(transfers, archive, Question(NIGHT, NEXT, columns=("diaSourceId", "fwhm")))

    old, new = (pq.read_table(transfer.folder / name) for name in sorted(transfer.parts()))

    assert old.schema == new.schema
    assert old["fwhm"].null_count == old.num_rows
    assert new["fwhm"].null_count == 0


def test_the_estimate_agrees_with_what_is_made(transfers, archive):
    question = Question(NIGHT, NEXT, where="snr > 10", columns=ASKED)
    told = estimate(*transfers.plan(question), archive)
    manifest = made(transfers, archive, question).manifest()

    assert not told.is_exact
    shown = [
        sum(pq.read_table(transfers.nights / f"{night}.parquet")["isPublic"].to_pylist())
        for night in (NIGHT, NEXT)
    ]
    assert (told.nights, told.rows) == (2, sum(shown))  # of the others not even the number
    assert 0 < told.sampled < 400
    assert abs(told.alerts - manifest["alerts"]) < 4 * told.alerts_err
    assert 0.5 < told.size / manifest["bytes"] < 2.0  # a file's own head is a part of small files


def test_equal_questions_are_one_transfer_and_equal_bytes(transfers, archive):
    for form in ("parquet", "avro", "csv"):
        question = Question(NIGHT, NIGHT, columns=ASKED, form=form)
        first = made(transfers, archive, question).manifest()
        assert transfers.add(question) == first["id"]
        assert made(transfers, archive, question).manifest() == first


def test_a_stopped_transfer_goes_on_with_the_parts_that_it_lacks(transfers, archive):
    question = Question(NIGHT, NEXT, columns=ASKED)
    transfer = made(transfers, archive, question, only=1)
    transfer.stop()
    assert transfer.state()["state"] == "stopped"
    assert transfer.manifest() is None
    before = transfer.parts()

    assert transfers.add(question) == transfer.folder.name
    assert transfer.state()["state"] == "running"
    assert transfers.waiting() == [transfer.folder.name]
    manifest = made(transfers, archive, question).manifest()

    assert len(manifest["files"]) == 2
    assert manifest["files"][0] == before["part-00000.parquet"].as_json()


def test_a_transfer_whose_nights_were_written_anew_is_refused(transfers, archive):
    transfer = made(transfers, archive, Question(NIGHT, NEXT), only=1)
    pq.write_table(night_table(3), transfers.nights / f"{NEXT}.parquet")

    with pytest.raises(ConfigError, match="have changed"):
        transfer.opened()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"first": "2025-11-10"}, "no night"),
        ({"first": "20260101", "last": "20250101"}, "after the last"),
        ({"form": "xls"}, "no format"),
        ({"cones": ((10.0, 95.0, 1.0),)}, "cone"),
        ({"columns": ("history",), "form": "csv"}, "not for csv"),
        ({"columns": ("nothing",)}, "no column"),
        ({"where": "nothing > 1"}, "nothing"),
        ({"first": "20240101", "last": "20240102"}, "no night"),
    ],
)
def test_what_is_not_allowed_is_told(transfers, wrong, words):
    with pytest.raises(ConfigError, match=words):
        transfers.plan(Question(**({"first": NIGHT, "last": NIGHT} | wrong)))


@pytest.fixture
def served(transfers, archive):
    """The address of a web server that serves the transfers."""
    app = make_app(None, requests_per_s=1e6, burst=10**6)
    assert isinstance(app, FastAPI)
    add_transfers(app, transfers, archive, prefix="/api/v1")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_a_download_that_was_stopped_goes_on_elsewhere_and_is_verified(
    transfers, archive, served, tmp_path
):
    transfer = made(transfers, archive, Question(NIGHT, NEXT, columns=ASKED))
    name = transfer.folder.name
    here, there = tmp_path / "here", tmp_path / "there"

    class StoppedError(Exception):
        pass

    moved = []

    def advance(more):
        moved.append(more)
        if sum(moved) > 3000:
            raise StoppedError

    with pytest.raises(StoppedError):
        download(served, name, here, advance=advance, chunk=1000)
    (partial,) = here.glob("*.partial")
    kept = partial.stat().st_size
    here.rename(there)  # to another machine
    moved.clear()
    download(served, name, there, advance=moved.append, chunk=1000)

    assert kept >= 2000
    assert moved[0] == kept  # it was not fetched again
    rows = verify_folder(there)
    assert [row["problem"] for row in rows] == [""] * 3
    assert rows[-1]["alerts"] == transfer.manifest()["alerts"]
    assert not list(there.glob("*.partial"))


def test_broken_and_lacking_files_are_found_and_fetched_again(transfers, archive, served, tmp_path):
    transfer = made(transfers, archive, Question(NIGHT, NEXT, columns=ASKED, form="csv"))
    folder = tmp_path / "got"
    download(served, transfer.folder.name, folder)
    first, second = sorted(folder.glob("*.csv"))
    content = bytearray(first.read_bytes())
    content[100] ^= 1
    first.write_bytes(content)
    second.unlink()

    problems = [row["problem"] for row in verify_folder(folder)]
    download(served, transfer.folder.name, folder)

    assert all(problems)
    assert [row["problem"] for row in verify_folder(folder)] == ["", "", ""]


def test_a_file_that_the_server_has_wrong_is_refused(transfers, archive, served, tmp_path):
    transfer = made(transfers, archive, Question(NIGHT, NIGHT, columns=ASKED))
    path = transfer.folder / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(AlertError, match="SHA-256"):
        download(served, transfer.folder.name, tmp_path / "got")


def test_what_is_not_done_is_not_downloaded(transfers, archive, served, tmp_path):
    transfer = made(transfers, archive, Question(NIGHT, NEXT), only=1)

    for name in (transfer.folder.name, "0" * 16, "../../secret"):
        with pytest.raises(ServiceError, match="404"):
            download(served, name, tmp_path / "got")
