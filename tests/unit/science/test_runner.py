"""Whatever a contributed module does, it hurts only its own columns, and nothing is left."""

import os
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from broker.alerts.columns import Column
from broker.errors import ConfigError
from broker.science import Runner, find_contributions, sample_alerts
from broker.science.isolation import ChildEndedError

CATALOGS = {
    "reference": (
        Column("referenceMatch", "int32", "", "Reading.", nullable=False),
        Column("referenceClass", "string", "", "Class."),
    )
}
ALERTS = sample_alerts(40, seed=3, catalogs=CATALOGS, cutouts=False)

GOOD = """
return pd.DataFrame({"goodValue": np.sqrt(np.abs(psf_flux.astype("float64")))})
"""

BAD = {
    "raises": ("raise ValueError('no such thing')", "failed", "ValueError: no such thing"),
    "exits": ("import os; os._exit(3)", "failed", "ended its process with status 3"),
    "leaves": ("import sys; sys.exit('bye')", "failed", "SystemExit: bye"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "failed", "SIGSEGV"),
    "sleeps": ("import time; time.sleep(100)", "timed-out", "still running after"),
    "spins": ("sum(iter(int, 1))", "timed-out", "still running after"),
    "eats": ("return {'eatsValue': np.ones(10**9)[:40]}", "failed", "memory"),
    "toolong": ("return {'toolongValue': np.zeros(41)}", "failed", "(41,) for 40 alerts"),
    "words": ("return {'wordsValue': ['x'] * 40}", "failed", "float64 and came as str"),
    "forgets": ("return {'otherValue': np.zeros(40)}", "failed", "undeclared otherValue"),
    "mute": ("return None", "failed", "returned NoneType"),
    "writes": ("psf_flux.iloc[0] = 0.0", "failed", "read-only"),
}
"""What a module does, the status that it gets, and words of the reason."""

CHOOSES = """
@topic_filter(topic="by-bad", max_pass_fraction=1.0)
def by_bad({name}_value):
    '''For tests.'''
    return {name}_value > 0

@topic_filter(topic="by-good", max_pass_fraction=1.0)
def by_good(good_value):
    '''For tests.'''
    return good_value > 44.72
"""


def contributions(folder):
    return find_contributions(folder, catalogs=CATALOGS, check_source=False)


def shared_memory():
    return sorted(os.listdir("/dev/shm")) if Path("/dev/shm").exists() else []  # noqa: PTH208


def test_bad_modules_hurt_only_their_own_columns(write_modules, module):
    folder = write_modules(
        good=module("good", GOOD),
        late=module("late", "return {'lateValue': exits_value + 1}", inputs="exits_value"),
        chooses=CHOOSES.format(name="crashes"),
        **{name: module(name, body) for name, (body, _, _) in BAD.items()},
    )
    found = contributions(folder)
    alone = Runner(found.without(frozenset({*BAD, "late", "by-bad"})), isolate=False).run(ALERTS)
    before = shared_memory()

    with Runner(found, min_batch_s=0.5, ms_per_alert=0.1, memory_mb=1500) as runner:
        outcome = runner.run(ALERTS)
        child = psutil.Process(runner.child_pid)

    for name, (_, status, reason) in BAD.items():
        assert outcome.status[name] == status, name
        assert reason in outcome.reasons[name]
        assert outcome.outputs.column(f"{name}@1.0.0:{name}Value").null_count == 40
    good = "good@1.0.0:goodValue"
    assert outcome.outputs.column(good).equals(alone.outputs.column(good))  # bit by bit
    assert outcome.status["good"] == "ok"
    assert outcome.status["late"] == outcome.filter_status["by-bad"] == "not-run"
    assert "exits" in outcome.reasons["late"]
    assert outcome.outputs.column("late@1.0.0:lateValue").null_count == 40
    assert not outcome.passes["by-bad"].any()
    assert (outcome.passes["by-good"] == alone.passes["by-good"]).all()
    assert 0 < outcome.passes["by-good"].sum() < 40
    assert set(outcome.failures) == set(BAD)
    assert not child.is_running()
    assert shared_memory() == before


def test_the_culprit_is_named_among_slow_ones(write_modules, module):
    slow = "import time; time.sleep(0.5)\nreturn {'%sValue': psf_flux}"
    folder = write_modules(
        **{name: module(name, slow % name) for name in ("alpha", "beta", "delta")},
        charlie=module("charlie", "import time; time.sleep(100)"),
    )

    with Runner(contributions(folder), min_batch_s=1.0, ms_per_alert=0.1) as runner:
        outcome = runner.run(ALERTS)

    expected = {"alpha": "ok", "beta": "ok", "charlie": "timed-out", "delta": "ok"}
    assert outcome.status == expected


def test_what_a_module_started_ends_with_it(write_modules, module):
    body = """
    import subprocess, sys, time
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    return pd.DataFrame({"startsValue": psf_flux})
    """
    runner = Runner(contributions(write_modules(starts=module("starts", body))))
    runner.run(ALERTS)
    started = psutil.Process(runner.child_pid).children()

    runner.close()

    assert len(started) == 1
    psutil.wait_procs(started, timeout=60)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started)


def test_a_child_ends_with_its_parent(tmp_path, write_modules, module):
    folder = write_modules(good=module("good", GOOD))
    program = f"""
import os, signal
from broker.science import Runner, find_contributions, sample_alerts
from broker.science.isolation import ChildEndedError
runner = Runner(find_contributions({str(folder)!r}, check_source=False))
runner.run(sample_alerts(5, cutouts=False))
print(runner.child_pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    import subprocess
    import sys

    said = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pid = int(said.stdout)

    for _ in range(3000):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.02)
    else:
        pytest.fail(f"the child {pid} outlived its parent")


def test_a_child_that_dies_between_batches_is_replaced(write_modules, module):
    with Runner(contributions(write_modules(good=module("good", GOOD)))) as runner:
        first = runner.run(ALERTS)
        psutil.Process(runner.child_pid).kill()
        second = runner.run(ALERTS)

    assert second.status == {"good": "ok"}
    assert second.outputs.equals(first.outputs)


def test_the_child_knows_nothing_of_the_parent_s_environment(write_modules, module, monkeypatch):
    monkeypatch.setenv("BROKER_TEST_SECRET", "swordfish")
    body = """
    import os
    seen = "swordfish" in " ".join(os.environ.values())
    return pd.DataFrame({"looksValue": np.full(len(psf_flux), float(seen))})
    """

    with Runner(contributions(write_modules(looks=module("looks", body)))) as runner:
        outcome = runner.run(ALERTS)

    assert set(outcome.outputs.column(0).to_pylist()) == {0.0}


def test_inline_and_isolated_give_the_same():
    found = find_contributions()
    alerts = sample_alerts(30, seed=5)
    with Runner(found, isolate=False) as inline, Runner(found) as isolated:
        here, there = inline.run(alerts), isolated.run(alerts)

    assert here.outputs.equals(there.outputs)
    assert here.status == there.status == dict.fromkeys(here.status, "ok")
    assert all((here.passes[t] == there.passes[t]).all() for t in found.topics)


def test_batches_of_many_sizes_follow_one_another(write_modules, module):
    with Runner(contributions(write_modules(good=module("good", GOOD)))) as runner:
        pid = None
        for n in (1, 40, 3, 0, 17):
            outcome = runner.run(ALERTS.slice(0, n))
            flux = ALERTS.column("psfFlux").to_numpy()[:n].astype(float)
            got = outcome.outputs.column(0).to_numpy()
            np.testing.assert_array_equal(got, np.sqrt(np.abs(flux)))
            pid = pid or runner.child_pid
        assert runner.child_pid == pid


def test_an_answer_stays_when_the_next_one_is_written(write_modules, module):
    with Runner(contributions(write_modules(good=module("good", GOOD)))) as runner:
        first = runner.run(ALERTS)
        kept = first.outputs.column(0).to_pylist()
        runner.run(ALERTS.take(np.arange(40)[::-1]))

    assert first.outputs.column(0).to_pylist() == kept


def test_what_is_quarantined_is_not_run(write_modules, module):
    found = contributions(
        write_modules(
            good=module("good", GOOD),
            bad=module("bad", "raise ValueError"),
            chooses=CHOOSES.format(name="bad"),
        )
    )

    with Runner(found, isolate=False, quarantined=frozenset({"bad"})) as runner:
        outcome = runner.run(ALERTS)
        runner.quarantined = frozenset({"bad", "by-good"})
        later = runner.run(ALERTS)

    assert outcome.status == {"bad": "quarantined", "good": "ok"}
    assert outcome.filter_status == {"by-bad": "not-run", "by-good": "ok"}
    assert not outcome.failures
    assert "bad" not in outcome.seconds
    assert later.filter_status["by-good"] == "quarantined"
    assert not later.passes["by-good"].any()


def test_a_leaking_child_is_replaced_before_others_lack_memory(write_modules, module):
    leak = """
    global kept
    kept = globals().get("kept", []) + [np.empty(25_000_000)]
    return {"leakValue": psf_flux}
    """
    with Runner(contributions(write_modules(leak=module("leak", leak))), memory_mb=1000) as runner:
        outcomes, pids = [], set()
        for _ in range(4):  # 200 MB each
            outcomes.append(runner.run(ALERTS).status)
            pids.add(runner.child_pid)

    assert outcomes == [{"leak": "ok"}] * 4
    assert len(pids) > 1


def test_a_model_is_made_once(write_modules):
    source = """
    def load():
        import itertools
        return itertools.count(1)

    @science_module(
        version="1.0.0", outputs=(Column("calls", "int32", "", "Calls."),), setup=load
    )
    def counts(psf_flux, model):
        '''Count its calls.'''
        return pd.DataFrame({"calls": np.full(len(psf_flux), next(model))})
    """
    with Runner(contributions(write_modules(counts=source))) as runner:
        seen = [runner.run(ALERTS).outputs.column(0)[0].as_py() for _ in range(3)]

    assert seen == [1, 2, 3]


def test_a_null_passes_no_filter_and_a_number_is_no_answer(write_modules):
    source = """
    @topic_filter(topic="nulls", max_pass_fraction=1.0)
    def nulls(psf_flux):
        '''For tests.'''
        return pd.Series([True, None, np.nan, pd.NA, False] * 8, dtype=object)

    @topic_filter(topic="masked", max_pass_fraction=1.0)
    def masked(psf_flux):
        '''For tests.'''
        return pd.Series([True, None, False, None] * 10, dtype="boolean")

    @topic_filter(topic="numbers", max_pass_fraction=1.0)
    def numbers(psf_flux):
        '''For tests.'''
        return psf_flux * 1.0

    @topic_filter(topic="short", max_pass_fraction=1.0)
    def short(psf_flux):
        '''For tests.'''
        return psf_flux[:-1] > 0
    """
    with Runner(contributions(write_modules(filters=source)), isolate=False) as runner:
        outcome = runner.run(ALERTS)

    assert outcome.passes["nulls"].tolist() == [True, False, False, False, False] * 8
    assert outcome.passes["masked"].tolist() == [True, False, False, False] * 10
    assert outcome.filter_status["numbers"] == outcome.filter_status["short"] == "failed"
    assert "booleans" in outcome.filter_reasons["numbers"]
    assert "(39,) for 40" in outcome.filter_reasons["short"]
    assert not outcome.passes["numbers"].any()


def test_epochs_that_are_not_public_stay_out_of_public_alerts(write_modules):
    source = """
    @science_module(version="1.0.0", outputs=(Column("epochs", "int32", "", "Epochs."),))
    def counts(history: LightCurves):
        '''Count epochs.'''
        return pd.DataFrame({"epochs": history.count})
    """
    alerts = sample_alerts(200, seed=8, catalogs={}, cutouts=False)
    found = find_contributions(write_modules(counts=source), catalogs={})

    with Runner(found, isolate=False) as runner:
        got = runner.run(alerts).outputs.column(0).to_pylist()

    for seen, row in zip(got, alerts.select(["history", "isPublic"]).to_pylist(), strict=True):
        public = [entry for entry in row["history"] if entry["isPublic"]]
        assert seen == len(public if row["isPublic"] else row["history"])
    assert any(not entry["isPublic"] for h in alerts.column("history").to_pylist() for entry in h)


def test_a_match_that_is_absent_reads_not_searched(write_modules):
    source = """
    @science_module(version="1.0.0", outputs=(Column("reading", "int32", "", "Reading."),))
    def reads(reference_match, reference_class):
        '''Pass the reading on.'''
        assert reference_class.isna().all()
        return pd.DataFrame({"reading": reference_match})
    """
    found = contributions(write_modules(reads=source))
    plain = ALERTS.drop_columns(["referenceMatch", "referenceClass"])

    with Runner(found, isolate=False) as runner:
        outcome = runner.run(plain)

    assert outcome.status == {"reads": "ok"}
    assert set(outcome.outputs.column(0).to_pylist()) == {-1}


def test_a_batch_without_a_canonical_column_is_a_wrong_set_up(write_modules, module):
    runner = Runner(contributions(write_modules(good=module("good", GOOD))), isolate=False)

    with pytest.raises(ConfigError, match="no column psfFlux"):
        runner.run(pa.table({"ra": [1.0]}))


def test_a_child_that_keeps_dying_between_tasks_does_not_stop_the_stream(
    write_modules, module, monkeypatch
):
    class Dying:
        is_alive, grown_mb = True, 0.0

        def __init__(self, *_, **__):
            pass

        def run(self, *_, **__):
            raise ChildEndedError(-1, ("failed", "its process was ended by SIGKILL"))

        def close(self):
            pass

    monkeypatch.setattr("broker.science.runner.Child", Dying)
    runner = Runner(contributions(write_modules(good=module("good", GOOD))))

    outcome = runner.run(ALERTS)

    assert outcome.status == {"good": "failed"}
    assert "SIGKILL" in outcome.reasons["good"]
    assert outcome.outputs.column(0).null_count == 40
