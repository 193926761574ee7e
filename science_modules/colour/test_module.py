"""Colours come back, with errors that are honest."""

import numpy as np
import pytest

from broker.science.samples import light_curves as curves
from broker.units import mag_to_flux
from science_modules.colour.module import colour

G, R, NEAR_IR, UNKNOWN = 1, 2, 3, -1


def test_pulls_are_standard_normal():
    rng = np.random.default_rng(1)
    band = np.tile([G, R, NEAR_IR, G], (3000, 1))
    mjd = np.full(band.shape, 61000.0) - [0.03, 0.02, 0.01, 0.0]
    flux = mag_to_flux(np.array([20.0, 19.5, 19.6, 20.0])) * np.ones((3000, 1))
    error = 0.05 * flux
    got = colour(curves(mjd, flux + error * rng.normal(size=flux.shape), error, band))

    for name, truth in (("colourGr", 0.5), ("colourRi", -0.1)):
        pull = (got[name] - truth) / got[f"{name}Err"]
        assert abs(pull.mean()) < 0.1
        assert pull.std() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    "changed",
    [
        {"mjd": [60997.0, 61000.0]},  # not of the same day
        {"flux": [100.0, 2.0]},  # too faint in one band
        {"flux": [-100.0, 100.0]},
        {"band": [G, UNKNOWN]},
        {"band": [R, R]},
    ],
)
def test_a_band_without_a_good_flux_gives_null(changed):
    row = {"mjd": [60999.9, 61000.0], "flux": [100.0, 100.0], "band": [G, R]}
    good = {name: np.array([value]) for name, value in row.items()}
    bad = {name: np.array([value]) for name, value in (row | changed).items()}

    assert colour(curves(err=1.0, **good))["colourGr"].tolist() == [0.0]
    assert colour(curves(err=1.0, **bad)).isna().all(axis=None)
