"""What comes from outside, a kill or a pause, is no fault of the module that happens to run."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from broker.science import Runner, find_contributions, sample_alerts
from broker.science.isolation import Watch

ALERTS = sample_alerts(40, seed=3, cutouts=False)


def naps(folder, seconds, *, once):
    """Return what a module does that says when it sleeps; `once`: the first time only."""
    return f"""
    import time
    from pathlib import Path
    marks = sorted(Path({str(folder)!r}).glob("nap-*"))
    if not ({once} and marks):
        Path({str(folder)!r}, f"nap-{{len(marks)}}").touch()
        time.sleep({seconds})
    return pd.DataFrame({{"napsValue": psf_flux}})
    """


def wait_for(path):
    limit = time.monotonic() + 120.0
    while not path.exists():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_module_is_not_blamed_when_its_process_is_killed_from_outside(
    write_modules, module, tmp_path
):
    marks = tmp_path / "marks"
    marks.mkdir()
    folder = write_modules(naps=module("naps", naps(marks, 100.0, once=True)))

    with (
        Runner(find_contributions(folder, check_source=False)) as runner,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(runner.run, ALERTS)
        wait_for(marks / "nap-0")
        psutil.Process(runner.child_pid).kill()
        outcome = running.result(120.0)

    assert outcome.status == {"naps": "ok"}
    assert outcome.outputs.column(0).null_count == 0


def test_a_module_that_kills_its_process_again_is_blamed(write_modules, module):
    folder = write_modules(
        good=module("good", "return {'goodValue': psf_flux}"),
        ends=module("ends", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
    )

    with Runner(find_contributions(folder, check_source=False)) as runner:
        outcome = runner.run(ALERTS)

    assert outcome.status == {"good": "ok", "ends": "failed"}
    assert "SIGKILL" in outcome.reasons["ends"]


def test_time_for_which_this_process_stood_still_is_no_time_of_a_task():
    watch = Watch(100.0)
    assert watch.spent_s(99.0, 100.5) == pytest.approx(1.5)
    assert watch.spent_s(99.0, 170.5) == pytest.approx(1.5)  # away for 70 s
    assert watch.spent_s(99.0, 171.0) == pytest.approx(2.0)
    assert watch.spent_s(150.0, 171.2) == pytest.approx(0.7)  # begun while we were away
    assert watch.spent_s(171.1, 171.3) == pytest.approx(0.2)
    assert watch.spent_s(171.1, 175.3) == pytest.approx(0.2)  # away again


@pytest.mark.slow
def test_a_pause_of_the_whole_stream_makes_no_module_late(write_modules, module, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    folder = write_modules(naps=module("naps", naps(marks, 0.5, once=False)))
    pause = (
        "import os, signal, sys, time\n"
        "for at, sent in ((0, signal.SIGSTOP), (7, signal.SIGCONT)):\n"
        "    time.sleep(at)\n"
        "    for pid in sys.argv[1:]:\n"
        "        os.kill(int(pid), sent)\n"
    )

    with (
        Runner(find_contributions(folder, check_source=False), min_batch_s=5.0) as runner,
        ThreadPoolExecutor(1) as pool,
    ):
        runner.run(ALERTS)  # from now on it has no grace
        running = pool.submit(runner.run, ALERTS)
        wait_for(marks / "nap-1")
        began = time.monotonic()
        pids = [str(runner.child_pid), str(os.getpid())]
        subprocess.run([sys.executable, "-c", pause, *pids], check=True)
        outcome = running.result(120.0)

    assert time.monotonic() - began > 7.0
    assert outcome.status == {"naps": "ok"}
