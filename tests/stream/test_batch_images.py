"""Spark runs a stranger's program on many files and finds what a plain loop finds."""

import importlib.util
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from broker.batch.images import find_files, results, run_images
from broker.batch.programs import find_program
from broker.errors import ConfigError

PROGRAM = """
import os, signal
import numpy as np
import pyarrow as pa
from astropy.io import fits

def measure(path, *, percentile):
    header, data = fits.getheader(path), fits.getdata(path)
    if header.get("RAISES"):
        raise ValueError("told to")
    if header.get("CRASHES"):
        os.kill(os.getpid(), signal.SIGKILL)
    if header.get("HANGS"):
        while True:
            pass
    if header.get("ONCE"):
        marker = header["ONCE"]
        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getppid(), signal.SIGKILL)
            while True:
                pass
    return {"mean": float(data.mean()), "p": float(np.percentile(data, percentile))}

def brightest(path):
    data = fits.getdata(path).ravel()
    rows = np.argsort(data)[-3:]
    return pa.table({"pixel": rows, "value": data[rows].astype(float)})
"""


def image(path, seed, **keys):
    data = np.random.default_rng(seed).normal(100.0, 5.0, (32, 40)).astype(np.float32)
    fits.PrimaryHDU(data, fits.Header(keys)).writeto(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty good files in two folders and six bad ones; the program beside."""
    path = tmp_path_factory.mktemp("images")
    (path / "deep").mkdir()
    for k in range(30):
        image(path / ("deep" if k % 3 else ".") / f"good-{k:02d}.fits", k)
    image(path / "raises.fits", 100, RAISES=True)
    image(path / "crashes.fits", 101, CRASHES=True)
    image(path / "hangs.fits", 102, HANGS=True)
    body = (path / "good-00.fits").read_bytes()
    (path / "short.fits").write_bytes(body[:5000])
    (path / "text.fits").write_text("this is no image")
    (path / "empty.fits").write_bytes(b"")
    (path / "notes.txt").write_text("no FITS by its name")
    (path.parent / "old_program.py").write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    """The program as a plain module: what a loop without us gives."""
    spec = importlib.util.spec_from_file_location("plain", folder.parent / "old_program.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder, name="measure", **settings):
    return find_program(f"{folder.parent}/old_program.py:{name}", settings=settings, timeout_s=1.5)


def test_every_file_has_a_row_and_good_ones_what_a_loop_gives(spark, folder, plain, tmp_path):
    files = find_files([folder])

    report = run_images(spark, program(folder, percentile=90), files, tmp_path)

    rows = {os.path.relpath(row["path"], folder): row for row in results(tmp_path)}
    bad = {name: (row["status"], row["reason"]) for name, row in rows.items() if row["reason"]}
    assert bad == {
        "raises.fits": ("failed", "ValueError: told to (old_program.py:10)"),
        "crashes.fits": ("killed", "it was ended by SIGKILL"),
        "hangs.fits": ("timed-out", "it took longer than 1.5 s"),
        "short.fits": ("bad-file", "it is cut short: HDU 0 has 2120 of 5120 bytes"),
        "text.fits": ("bad-file", "it is not FITS: it does not start with SIMPLE"),
        "empty.fits": ("bad-file", "it is empty"),
    }
    good = {name: row["result"] for name, row in rows.items() if name not in bad}
    assert good == {name: plain.measure(folder / name, percentile=90) for name in good}
    assert len(good) == 30
    assert report.statuses == {"bad-file": 3, "done": 30, "failed": 1, "killed": 1, "timed-out": 1}
    assert pq.read_table(tmp_path / "files.parquet").num_rows == 36
    assert (tmp_path / "files.csv").read_text().count("\n") >= 37


def test_tables_are_put_together_in_the_order_of_files(spark, folder, plain, tmp_path):
    files = [f for f in find_files([folder]) if "good" in f.name]

    run_images(spark, program(folder, "brightest"), files, tmp_path)

    expected = [
        {"path": str(file)} | row for file in files for row in plain.brightest(file).to_pylist()
    ]
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == expected


def test_a_run_goes_on_where_it_was(spark, folder, tmp_path):
    files = [f for f in find_files([folder]) if "good" in f.name or "raises" in f.name]
    whole = run_images(spark, program(folder, percentile=90), files, tmp_path / "whole")
    run_images(spark, program(folder, percentile=90), files[:20], tmp_path / "out")
    part = next((tmp_path / "out" / ".parts").rglob("*.arrows"))
    part.write_bytes(part.read_bytes()[:-200])  # as if its writer had been killed

    again = run_images(spark, program(folder, percentile=90), files, tmp_path / "out", resume=True)
    other = run_images(spark, program(folder, percentile=50), files, tmp_path / "out", resume=True)

    assert whole.resumed == 0
    assert 18 <= again.resumed <= 20
    assert other.resumed == 0
    run_images(spark, program(folder, percentile=90), files, tmp_path / "out", resume=True)
    for name in ("path", "status", "reason", "result"):
        one, two = (pq.read_table(tmp_path / d / "files.parquet")[name] for d in ("whole", "out"))
        assert one == two


def test_a_killed_worker_costs_nothing_but_time(spark, folder, plain, tmp_path):
    image(tmp_path / "once.fits", 7, ONCE=str(tmp_path / "marker"))
    files = [f for f in find_files([folder]) if "good" in f.name] + [tmp_path / "once.fits"]

    run_images(spark, program(folder, percentile=10), files, tmp_path / "out")

    assert (tmp_path / "marker").exists()
    rows = {row["path"]: row for row in results(tmp_path / "out")}
    assert {row["status"] for row in rows.values()} == {"done"}
    for file in files:
        assert rows[str(file)]["result"] == plain.measure(file, percentile=10)


def test_files_are_those_of_folders_and_those_named(folder):
    assert len(find_files([folder, folder / "deep"])) == 36
    assert find_files([folder / "notes.txt"]) == [folder / "notes.txt"]
    with pytest.raises(ConfigError, match="no file or folder"):
        find_files([folder / "nothing"])
