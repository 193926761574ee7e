"""A server process is found again, and only that very process is stopped."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from broker.local import process

SLEEPER = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def start(tmp_path):
    """Start a program and wait until it is up; it never outlives the test."""
    started = []

    def start(command=SLEEPER, name="server"):
        out = tmp_path / f"{name}.out"
        pid_file = tmp_path / f"{name}.json"
        record = process.start(command, pid_file=pid_file, port=1, out=out, folder=tmp_path)
        started.append(record.pid)
        deadline = time.monotonic() + 30
        while "up" not in out.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        return record, pid_file

    yield start
    for pid in started:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()
            psutil.Process(pid).wait()


def test_a_started_process_is_found_and_leads_a_session_of_its_own(start):
    record, pid_file = start()

    found, running = process.find(pid_file)

    assert found == record
    assert running.pid == record.pid
    assert psutil.Process().pid != record.pid
    assert psutil.os.getsid(record.pid) == record.pid
    assert process.memory_mb(running) > 1


def test_a_stopped_process_has_gone_and_leaves_no_pid_file(start):
    record, pid_file = start()

    assert process.stop(pid_file, timeout_s=10)

    assert not psutil.pid_exists(record.pid)
    assert not pid_file.exists()
    assert not process.stop(pid_file, timeout_s=10)


def test_a_process_that_ignores_the_request_is_killed(start):
    record, pid_file = start(DEAF)

    assert process.stop(pid_file, timeout_s=0.2)

    assert not psutil.pid_exists(record.pid)


def test_a_stale_pid_file_names_no_process_even_if_its_number_lives(start):
    _, pid_file = start()
    bystander = subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL)
    try:
        row = json.loads(pid_file.read_text())
        process.stop(pid_file, timeout_s=10)
        pid_file.write_text(json.dumps({**row, "pid": bystander.pid, "started": 1.0}))

        assert process.find(pid_file)[1] is None
        assert not process.stop(pid_file, timeout_s=10)

        assert bystander.poll() is None
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()


@pytest.mark.parametrize("text", ["", "not json", '{"pid": 1}'])
def test_a_damaged_pid_file_names_no_process(tmp_path, text):
    pid_file = tmp_path / "server.json"
    pid_file.write_text(text)

    assert process.find(pid_file) == (None, None)
