"""Each contract check finds the fault that it is for, and says it in plain words."""

import pytest

from broker.science import find_contributions
from broker.science.checks import check_module, subjects
from broker.science.samples import sample_alerts

FAULTS = {
    "no_alert_depends_on_its_neighbours": (
        "return pd.DataFrame({'badValue': psf_flux - psf_flux.mean()})",
        "no answer may depend on the other alerts",
    ),
    "the_same_alerts_give_the_same_answer": (
        "return pd.DataFrame({'badValue': np.random.default_rng().normal(size=len(psf_flux))})",
        "seed what is random",
    ),
    "no_file_or_socket_is_opened": (
        "open('/dev/null').close()\nreturn pd.DataFrame({'badValue': psf_flux})",
        "opened the file /dev/null",
    ),
    "an_empty_batch_works": (
        "return pd.DataFrame({'badValue': psf_flux - psf_flux.iloc[0] * 0.0})",
        "bad failed: IndexError",
    ),
    "outputs_are_as_declared": (
        "return pd.DataFrame({'other': psf_flux})",
        "missing badValue, undeclared other",
    ),
    "it_keeps_to_its_time": (
        "import time; time.sleep(0.021 * len(psf_flux)); return {'badValue': psf_flux}",
        "at most 20.0 ms",
    ),
    "nulls_are_borne": (
        "return pd.DataFrame({'badValue': [float(x.ra) for x in history.flux if len(x)]})",
        "bad failed",
    ),
}


def find(write_modules, source):
    return find_contributions(write_modules(bad=source), check_source=False)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name, write_modules, module):
    import broker.science.checks as checks

    body, words = FAULTS[name]
    (subject,) = subjects(find(write_modules, module("bad", body)))

    with pytest.raises(checks.CheckError, match=words):
        getattr(checks, f"check_{name}")(subject)


def test_a_socket_is_seen(write_modules, module):
    from broker.science.checks import CheckError, check_no_file_or_socket_is_opened

    body = "import socket; socket.socket().close(); return {'badValue': psf_flux}"
    (subject,) = subjects(find(write_modules, module("bad", body)))

    with pytest.raises(CheckError, match="opened a socket"):
        check_no_file_or_socket_is_opened(subject)


def test_one_that_crashes_is_named_and_the_checks_come_back(write_modules, module):
    folder = write_modules(bad=module("bad", "import faulthandler; faulthandler._sigsegv()"))

    source, result = check_module("bad", str(folder))

    assert source.ok
    assert not result.ok
    assert "ended by SIGSEGV" in result.message


def test_an_alert_of_the_sample_depends_on_the_seed_and_its_number_only():
    few, many = (sample_alerts(n, seed=5) for n in (3, 9))

    assert few.equals(many.slice(0, 3))
    assert not sample_alerts(3, seed=6).equals(few)
