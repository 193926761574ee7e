"""Every kind of transient that is found is held to the same contract."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.simulation.contract import Surroundings, TransientClass
from broker.simulation.transients import agn, find_classes, microlensing, supernova_ia
from broker.units import BANDS

FIRST = 60_990.0
EACH = pytest.mark.parametrize("kind", find_classes(), ids=lambda kind: kind.name)


def drawn(kind: TransientClass, n: int = 40, seed: int = 1):
    rng = np.random.default_rng(seed)
    amplitude = rng.uniform(300.0, 20_000.0, n)
    return kind.draw(rng, Surroundings(amplitude, rng.uniform(0.0, 1.0, n), FIRST))


def test_the_kinds_are_found():
    names = [kind.name for kind in find_classes()]
    ours = {"supernova-ia", "kilonova", "flare-star", "agn", "microlensing", "variable-star"}

    assert names == sorted(set(names))
    assert ours <= set(names)


@EACH
@settings(max_examples=30)
@given(
    mjd=st.floats(FIRST - 4_000.0, FIRST + 4_000.0),
    band=st.sampled_from(BANDS),
    seed=st.integers(0, 2**32),
)
def test_fluxes_are_finite_and_not_negative(kind, mjd, band, seed):
    params = drawn(kind, 10, seed)

    for flux in (kind.flux(mjd, band, params), kind.template_flux(band, params)):
        assert flux.shape == (10,)
        assert np.all(np.isfinite(flux))
        assert np.all(flux >= 0.0)


@EACH
def test_the_same_seed_gives_the_same_light_curve(kind):
    one, other = drawn(kind), drawn(kind)

    for mjd in (FIRST - 1.0, FIRST, FIRST + 0.123):
        np.testing.assert_array_equal(kind.flux(mjd, "r", one), kind.flux(mjd, "r", other))


@EACH
def test_a_light_curve_does_not_depend_on_its_neighbours(kind):
    params = drawn(kind)
    alone = {name: values[7:8] for name, values in params.items()}

    np.testing.assert_allclose(
        kind.flux(FIRST, "g", alone), kind.flux(FIRST, "g", params)[7:8], rtol=1e-12
    )


@EACH
def test_no_transients_is_no_error(kind):
    nothing = Surroundings(np.empty(0), np.empty(0), FIRST)

    params = kind.draw(np.random.default_rng(1), nothing)

    assert kind.flux(FIRST, "r", params).shape == (0,)
    assert kind.template_flux("r", params).shape == (0,)


@EACH
def test_the_flux_changes_in_a_month(kind):
    params = drawn(kind)
    curve = np.array([kind.flux(FIRST + t, "r", params) for t in np.linspace(-15.0, 15.0, 301)])

    assert np.median(np.ptp(curve, axis=0)) > 100.0


def test_a_supernova_peaks_at_its_amplitude():
    params = drawn(supernova_ia.CLASS)
    times = FIRST + np.linspace(-80.0, 200.0, 4_000)

    curve = np.array([supernova_ia.flux(mjd, "r", params) for mjd in times])

    np.testing.assert_allclose(curve.max(axis=0), params["amplitude"], rtol=1e-3)


def test_magnification_is_paczynski_s():
    # u = 1 gives 3 / sqrt 5, the usual definition of an event.
    assert microlensing._magnification(np.array([1.0]))[0] == pytest.approx(3.0 / np.sqrt(5.0))


def test_active_nuclei_walk_with_the_memory_they_were_given():
    n = 4_000
    params = dict(drawn(agn.CLASS, n))
    tau = 50.0
    rng = np.random.default_rng(8)
    params["rms_mag"] = np.full(n, 0.2)
    params["frequency"] = rng.standard_cauchy(params["frequency"].shape) / tau

    def mag(mjd):
        flux = agn.CLASS.flux(mjd, "r", params) / agn.CLASS.template_flux("r", params)
        return -2.5 * np.log10(flux)

    start = mag(FIRST)
    # Standard errors of a variance and of a correlation of n normal numbers.
    assert np.var(start) == pytest.approx(0.04, rel=4.0 * np.sqrt(2.0 / n))
    for lag in (10.0, 50.0, 100.0):
        found = np.corrcoef(start, mag(FIRST + lag))[0, 1]
        assert found == pytest.approx(np.exp(-lag / tau), abs=4.0 / np.sqrt(n))
