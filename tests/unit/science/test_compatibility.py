"""A pandas UDF of another broker runs unchanged, under ZTF's names."""

import numpy as np
import pandas as pd
import pytest

from broker.errors import ConfigError
from broker.science import Column, Runner, find_contributions, sample_alerts, wrap_pandas_udf

SOURCE = """
from pyspark.sql.functions import pandas_udf
from pyspark.sql.types import DoubleType
from broker.science import wrap_pandas_udf

@pandas_udf(DoubleType())
def colour(jd: pd.Series, cmagpsf: pd.Series, cfid: pd.Series, magpsf: pd.Series,
           isdiffpos: pd.Series, rate: pd.Series) -> pd.Series:
    '''Mean magnitude in g minus that in r, of positive alerts.'''
    jd[:] = 0.0  # such functions write to their inputs
    means = [
        np.mean(m[(f == 1) & (m == m)]) - np.mean(m[(f == 2) & (m == m)])
        if ((f == 1) & (m == m)).any() and ((f == 2) & (m == m)).any() else np.nan
        for m, f in zip(cmagpsf, cfid)
    ]
    return pd.Series(means).where(isdiffpos == "t")

wrapped = wrap_pandas_udf(
    colour,
    columns=["jd", "cmagpsf", "cfid", "magpsf", "isdiffpos", "reference_match"],
    name="colour",
    version="0.3.0",
)
"""


@pytest.mark.parametrize("isolate", [False, True])
def test_a_spark_udf_gives_what_it_gives_on_ztf_columns(write_modules, isolate):
    alerts = sample_alerts(60, seed=4, cutouts=False)
    found = find_contributions(write_modules(colour=SOURCE))

    with Runner(found, isolate=isolate) as runner:
        outcome = runner.run(alerts)

    assert outcome.status == {"colour": "ok"}, outcome.reasons
    got = outcome.outputs.column("colour@0.3.0:colour").to_pylist()
    compared = 0
    for row, value in zip(alerts.to_pylist(), got, strict=True):
        seen = [
            e
            for e in row["history"]
            if e["psfFlux"] is not None and (e["isPublic"] or not row["isPublic"])
        ]
        mags = {
            band: [31.4 - 2.5 * np.log10(abs(e["psfFlux"])) for e in seen if e["band"] == band]
            for band in "gr"
        }
        if row["isNegative"] or not (mags["g"] and mags["r"]):
            assert value is None
        else:
            assert value == pytest.approx(np.mean(mags["g"]) - np.mean(mags["r"]), abs=1e-5)
            compared += 1
    assert compared > 20


def test_scalars_have_ztf_s_units_and_times():
    def keep(jd, fid, magpsf, sigmapsf, magnr, isdiffpos):
        return pd.DataFrame(locals()).assign(fid=fid.astype(float))

    names = ("jd", "fid", "magpsf", "sigmapsf", "magnr", "isdiffpos")
    wrapped = wrap_pandas_udf(
        keep,
        columns=names,
        name="keep",
        version="1.0.0",
        outputs=tuple(Column(name, "float64", "", "") for name in names),
    )
    given = {
        "survey": pd.Series(["ztf", "sim"]),
        "midpoint_mjd_tai": pd.Series([61000.0, 61000.0]),
        "band": pd.Series(["r", None]),
        "psf_flux": pd.Series([-3630.78, 3630.78]),
        "psf_flux_err": pd.Series([36.3078, np.nan]),
        "template_flux": pd.Series([np.nan, 36307.8]),
        "is_negative": pd.Series([True, False]),
    }

    got = wrapped(*(given[name] for name in wrapped.inputs))

    # MJD 61000 TAI is JD 2461000.5 minus 37 s (UTC); ZTF's jd is 15 s before the middle.
    assert (got["jd"] - 2461000.5).tolist() == pytest.approx([-52 / 86400, -37 / 86400], abs=1e-9)
    assert got["magpsf"].tolist() == pytest.approx([22.5, 22.5], abs=1e-4)
    assert got["sigmapsf"][0] == pytest.approx(1.0857 * 0.01, rel=1e-3)
    assert got["magnr"].tolist() == pytest.approx([np.nan, 20.0], abs=1e-4, nan_ok=True)
    assert got["fid"].tolist() == pytest.approx([2.0, np.nan], nan_ok=True)
    assert got["isdiffpos"].tolist() == ["f", "t"]


def test_a_plain_function_needs_its_outputs_named():
    with pytest.raises(ConfigError, match="give outputs="):
        wrap_pandas_udf(lambda ra: ra, columns=["ra"], name="plain", version="1.0.0")
