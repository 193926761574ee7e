"""The wheel: what is in it, and that it works where there is no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path("purelib"))


def run(*command, **more):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, **more
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the checkout, built from a copy of what it is made of: nothing is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("broker", "schemas", "science_modules", "tests"):
        run("cp", "-r", ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        run("cp", ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel in an environment of its own, which sees our libraries, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    # A folder that a .pth file names is searched, but .pth files in it are not read: of ours,
    # all that leads to the checkout is one of those.
    (site / "libraries.pth").write_text(f"{SITE}\n", encoding="utf-8")
    return folder / "venv" / "bin"


@pytest.fixture
def command(installed, tmp_path):
    """Call the installed command from an empty folder."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("BROKER_", "PYTHON"))}
    environ = kept | {"BROKER_HOME": str(tmp_path / "home")}

    def command(*arguments):
        return run(installed / "broker", *arguments, cwd=tmp_path, env=environ)

    command.python = lambda code: run(
        installed / "python", "-c", code, cwd=tmp_path, env=environ
    ).strip()
    return command


def test_the_wheel_has_all_that_is_used_and_no_test_of_the_project(names):
    assert names >= {
        "broker/local/jars.toml",
        "broker/catalog/definitions/reference.toml",
        "schemas/sim/1.0.avsc",
        "schemas/broker/ccd-image/1.0.avsc",
        "schemas/broker/ccd-image/1.1.avsc",
        "science_modules/rise_rate/module.py",
        "science_modules/rise_rate/README.md",
    }
    tracked = run("git", "-C", ROOT, "ls-files", "broker", "schemas", "science_modules").split("\n")
    used = {name for name in tracked if name.endswith((".py", ".avsc", ".toml"))}
    assert used - names == set()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "broker",
        "schemas",
        "science_modules",
    }


def test_the_installed_command_is_the_wheel_and_not_the_checkout(command, installed):
    for package in ("broker", "science_modules"):
        place = command.python(f"import {package}; print(list({package}.__path__)[0])")
        assert Path(place).is_relative_to(installed.parent)
    words = command("--help")
    assert "stream" in words
    assert "demo" in words


def test_modules_can_be_listed_and_checked_where_there_is_no_checkout(command):
    rows = {row["name"]: row for row in json.loads(command("module", "list", "--json"))}

    assert {"rise_rate", "context", "young-supernova"} <= set(rows)
    checks = json.loads(command("module", "check", "rise_rate", "--json"))
    assert len(checks) > 5
    assert all(check["ok"] for check in checks)


def test_settings_are_checked_and_packets_are_made(command, tmp_path):
    command("config", "check")
    command("simulate", "packets", "--survey", "ztf", "-n", "2", "--out", "packets")

    files = sorted((tmp_path / "packets").iterdir())
    assert [file.read_bytes()[:4] for file in files] == [b"Obj\x01"] * 2
    rows = json.loads(command("module", "run", "rise_rate", "--on", "packets", "--json"))
    assert [row["survey"] for row in rows] == ["ztf", "ztf"]


def test_a_contributor_needs_nothing_but_the_extra_for_science(command, tmp_path):
    code = """
import importlib.abc, sys
from click.testing import CliRunner

ABSENT = {"pyspark", "py4j", "happybase", "thriftpy2", "kafka", "psutil", "fastapi", "uvicorn"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from broker.cli.main import cli
from broker.science import run_module, sample_alerts

for words in (
    "simulate packets --survey ztf -n 5 --out packets",
    "module new mine --path modules",
    "module check mine --path modules",
    "module run mine --path modules -n 3",
    "module report mine --path modules --on packets --out reports",
    "module profile mine --path modules -n 50",
):
    done = CliRunner().invoke(cli, words.split())
    assert done.exception is None, (words, done.output, done.exception)
assert len(run_module("rise_rate", sample_alerts(5))) == 5
assert not ABSENT & set(sys.modules)
"""
    command.python(code)

    assert (tmp_path / "reports" / "mine-report.html").stat().st_size > 5000
