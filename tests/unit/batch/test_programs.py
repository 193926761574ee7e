"""A program is found, packed and run on one file after the other; none is lost."""

import json
import os
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from broker.batch.program_run import run_program
from broker.batch.programs import find_program, read_settings
from broker.errors import ConfigError
from broker.imaging.fits_check import problem_of

PROGRAM = """
    import os, signal, sys, time
    import numpy as np
    from astropy.io import fits

    def statistics(path, *, scale=1.0, names=()):
        data = fits.getdata(path)
        if data[0, 0] == 1:
            raise ValueError("no stars")
        if data[0, 0] == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if data[0, 0] == 3:
            time.sleep(60)
        if data[0, 0] == 4:
            sys.exit(3)
        if data[0, 0] == 5:
            return object()
        print("mean", data.mean())
        open("product.txt", "w").write(path)
        return {"mean": data.mean() * scale, "max": data.max(), "bad": np.nan, "names": names}
"""


def image(folder, name, first=0.0, seed=0):
    path = folder / name
    data = np.random.default_rng(seed).normal(10.0, 2.0, (20, 30)).astype(np.float32)
    data[0, 0] = first
    fits.PrimaryHDU(data).writeto(path)
    return path


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "old_code.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return path


def test_a_function_gives_what_a_plain_call_gives(module, tmp_path):
    paths = [image(tmp_path, f"{k}.fits", seed=k) for k in range(3)]
    program = find_program(f"{module}:statistics", settings={"scale": 2.5, "names": ["a"]})

    found = list(run_program(program, map(str, paths), products=tmp_path / "products"))

    for path, outcome in zip(paths, found, strict=True):
        data = fits.getdata(path)
        expected = {"mean": float(data.mean() * 2.5), "max": float(data.max())}
        assert outcome.status == "done"
        assert json.loads(outcome.result) == expected | {"bad": None, "names": ["a"]}
        assert outcome.log == f"mean {data.mean()!s}"
        assert outcome.seconds > 0.0
    kept = sorted((tmp_path / "products").rglob("product.txt"))
    assert [p.read_text() for p in kept] == sorted(str(p.resolve()) for p in paths)


def test_whatever_a_program_does_is_told_and_the_next_file_goes_on(module, tmp_path):
    paths = [str(image(tmp_path, f"{k}.fits", first=k)) for k in (1, 2, 3, 4, 5, 0)]
    program = find_program(f"{module}:statistics", timeout_s=3.0)

    found = list(run_program(program, paths))

    assert [(o.status, o.reason) for o in found] == [
        ("failed", "ValueError: no stars (old_code.py:9)"),
        ("killed", "it was ended by SIGSEGV"),
        ("timed-out", "it took longer than 3 s"),
        ("failed", "SystemExit: 3 (old_code.py:15)"),
        (
            "failed",
            "it returned a object: neither a table nor something that JSON has",
        ),
        ("done", ""),
    ]
    assert "Fatal Python error: Segmentation fault" in found[1].log


def test_a_module_that_cannot_be_loaded_fails_every_file_with_its_reason(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_this_name\ndef run(path): return 1\n")

    found = list(run_program(find_program(f"{path}:run"), [str(image(tmp_path, "a.fits"))] * 2))

    assert {o.status for o in found} == {"failed"}
    assert all("cannot be loaded: ModuleNotFoundError" in o.reason for o in found)


def test_tables_of_several_libraries_come_back_as_arrow(tmp_path):
    path = tmp_path / "makes.py"
    path.write_text(
        "from pathlib import Path\n"
        "import numpy as np, pyarrow as pa\nfrom astropy.table import Table\n"
        "MAKE = {\n"
        "  'arrow': lambda: pa.table({'x': [1.5, 2.5], 'n': ['a', 'b']}),\n"
        "  'pandas': lambda: MAKE['arrow']().to_pandas(),\n"
        "  'numpy': lambda: np.array([(1.5, 'a'), (2.5, 'b')], dtype=[('x', 'f8'), ('n', 'U1')]),\n"
        "  'astropy': lambda: Table({'x': [1.5, 2.5], 'n': ['a', 'b']}),\n"
        "}\ndef run(path): return MAKE[Path(path).stem]()\n"
    )
    kinds = ["arrow", "pandas", "numpy", "astropy"]
    files = [str(image(tmp_path, f"{kind}.fits")) for kind in kinds]

    for kind, found in zip(kinds, run_program(find_program(f"{path}:run"), files), strict=True):
        assert found.reason == "", kind
        with pa.ipc.open_stream(found.table) as reader:
            assert reader.read_all().to_pydict() == {"x": [1.5, 2.5], "n": ["a", "b"]}


def script(tmp_path, body):
    path = tmp_path / "measure.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_command_gets_the_file_and_its_settings(tmp_path):
    path = image(tmp_path, "a.fits")
    shown = script(
        tmp_path, 'echo "{\\"size\\": $(wc -c < "$1"), \\"k\\": $2}"; cat settings.json >&2'
    )
    program = find_program(f"{shown} {{file}} {{k}}", settings={"k": 7})

    (found,) = run_program(program, [str(path)])

    assert found.reason == ""
    assert json.loads(found.result) == {"size": path.stat().st_size, "k": 7}
    assert json.loads(found.log) == {"k": 7}


@pytest.mark.parametrize(
    ("body", "timeout_s", "status", "reason"),
    [
        ("echo no WCS >&2; exit 4", 60.0, "failed", "it exited with status 4: no WCS"),
        ("kill -9 $$", 60.0, "killed", "it was ended by SIGKILL"),
        ("sleep 600", 0.5, "timed-out", "it took longer than 0.5 s"),
    ],
)
def test_how_a_command_ends_is_told(body, timeout_s, status, reason, tmp_path):
    program = find_program(str(script(tmp_path, body)), timeout_s=timeout_s)

    (found,) = run_program(program, [str(image(tmp_path, "a.fits"))])

    assert (found.status, found.reason) == (status, reason)


def test_the_processes_that_a_hung_command_started_end_too(tmp_path):
    body = f"sleep 1000 & echo $! > {tmp_path}/pid; sleep 1000"
    program = find_program(str(script(tmp_path, body)), timeout_s=3.0)

    list(run_program(program, [str(image(tmp_path, "a.fits"))]))

    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 60
    while _is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)  # a killed process ends when the system comes to it
    assert not _is_alive(pid)


def _is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_a_package_travels_whole_and_the_same_bytes_each_time(tmp_path, monkeypatch):
    package = tmp_path / "here" / "survey"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "data" / "gain.txt").write_text("1.5")
    (package / "steps.py").write_text(
        "from pathlib import Path\n"
        "def run(path): return float((Path(__file__).parent / 'data/gain.txt').read_text())\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    path = str(image(tmp_path, "a.fits"))

    by_name = find_program("survey.steps:run")
    by_file = find_program("survey/steps.py:run")
    (found,) = run_program(by_name, [path])

    assert found.result == "1.5"
    assert by_name == by_file
    assert by_name.digest == by_file.digest
    os.utime(package / "steps.py", (1, 1))
    assert find_program("survey.steps:run").digest == by_name.digest
    (package / "data" / "gain.txt").write_text("1.6")
    assert find_program("survey.steps:run").digest != by_name.digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no_such.py:run", "no file"),
        ("no_such_module:run", "no module"),
        ("no-such-program", "no program"),
        ("true {file} {gain}", "no settings"),
        ("{module}:other", "no function other"),
        ("{module}", "not executable"),
    ],
)
def test_a_program_that_is_not_there_is_said_before_anything_runs(text, words, module):
    with pytest.raises(ConfigError, match=words):
        find_program(text.replace("{module}", str(module)))


def test_settings_are_those_of_the_file_then_those_typed(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('threshold = 5.0\nband = "r"\n')

    found = read_settings(path, ["threshold=6", "name=NGC 1", "list=[1, 2]"])

    assert found == {"threshold": 6, "band": "r", "name": "NGC 1", "list": [1, 2]}
    with pytest.raises(ConfigError, match="name=value"):
        read_settings(None, ["threshold"])


def whole(tmp_path, compressed):
    path = tmp_path / ("a.fits.gz" if compressed else "a.fits")
    table = fits.BinTableHDU.from_columns(
        [fits.Column("v", "PD()", array=np.array([[1.0], [2.0, 3.0]], dtype=object))]
    )
    units = [fits.PrimaryHDU(np.zeros((40, 50), np.int16)), table, fits.ImageHDU()]
    fits.HDUList(units).writeto(path)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_whole_files_have_no_problem_and_short_ones_have(compressed, tmp_path):
    path = whole(tmp_path, compressed)
    body = path.read_bytes()

    assert problem_of(path) is None
    for end in (0, 100, len(body) // 3, len(body) // 2 + 1):
        path.write_bytes(body[:end])
        assert problem_of(path) is not None, end


def test_every_length_short_of_the_data_is_found(tmp_path):
    path = whole(tmp_path, compressed=False)
    body = path.read_bytes()
    heap_end = 2880 + 5760 + 2880 + 2 * 8 + 24  # headers, image, table, heap
    for end in (2879, 2881, 6879, 8640 + 1, 8640 + 2880 + 15, heap_end - 1):
        path.write_bytes(body[:end])
        assert "cut short" in problem_of(path), end
    path.write_bytes(body[:heap_end])
    assert problem_of(path) is None  # only blanks are missing


def test_what_is_no_fits_is_said(tmp_path):
    path = tmp_path / "a.fits"
    path.write_text("hello")
    assert "not FITS" in problem_of(path)
    assert "no such file" in problem_of(tmp_path / "b.fits")
    path.write_bytes((b"SIMPLE  =                    T".ljust(80) + b"END".ljust(80)).ljust(2880))
    assert "does not say" in problem_of(path)


def test_what_is_installed_from_its_own_folder_is_found_from_any_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "packages" in p])

    program = find_program("broker.batch.measure:count_sources")

    assert program.archive == b""
