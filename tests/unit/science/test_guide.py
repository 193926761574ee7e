"""Every command of the contributor's guide is run, in its order, in an empty folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import science_modules
from broker.cli.main import cli
from broker.simulation.packets import simulate_packets

GUIDE = Path(next(iter(science_modules.__path__))) / "README.md"


def commands():
    """Return the lines of the guide's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_every_command_of_the_guide_does_what_it_should(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_HOME", str(tmp_path / "home"))
    (tmp_path / "packets").mkdir()
    for number, packet in enumerate(simulate_packets("ztf", 8)):
        (tmp_path / "packets" / f"{number}.avro").write_bytes(packet)

    typed = [line for line in commands() if line]
    for program, *arguments in typed:
        if program == "broker":
            done = CliRunner().invoke(cli, arguments)
            assert done.exception is None, f"{arguments}: {done.output}{done.exception}"
        else:
            assert program == "python"
            ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
            assert ran.returncode == 0, ran.stdout

    assert len(typed) >= 8
    assert (tmp_path / "my-modules" / "my_module" / "module.py").exists()
    assert (tmp_path / "reports" / "my_module-report.html").stat().st_size > 5000
    assert not (tmp_path / "home" / "filters").exists()  # a dry run


def test_the_guide_names_every_folder_and_topic():
    from broker.science import find_contributions

    text = GUIDE.read_text(encoding="utf-8")
    found = find_contributions()
    folders = {Path(task.file).parent.name for task in (*found.modules, *found.filters)}

    assert not {name for name in folders if f"({name}/README.md)" not in text}
    assert not {topic for topic in found.topics if f"`{topic}`" not in text}


@pytest.mark.parametrize("folder", sorted(p.parent for p in GUIDE.parent.glob("*/module.py")))
def test_every_output_is_in_its_module_s_readme(folder):
    from broker.science import find_contributions

    text = (folder / "README.md").read_text(encoding="utf-8")
    for module in find_contributions().modules:
        if Path(module.file).parent == folder and len(module.outputs) < 12:
            assert not [c.name for c in module.outputs if f"`{c.name}`" not in text]
