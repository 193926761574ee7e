"""Trained models come into a module by one line, and say what is wrong with their file."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from broker.errors import ConfigError
from broker.science import Runner, find_contributions, load_onnx, load_sklearn, sample_alerts

N_FEATURES = 3

SOURCE = """
from functools import partial
from pathlib import Path

from broker.science import Column, load_onnx, load_sklearn, science_module

@science_module(
    version="1.0.0",
    outputs=(Column("score", "float32", "", "A score."),),
    setup=partial({loader}, Path(__file__).with_name("{file}")),
)
def scored(psf_flux: pd.Series, psf_flux_err: pd.Series, snr: pd.Series, *, model) -> pd.DataFrame:
    '''Score.'''
    return pd.DataFrame({{"score": {call}}}).astype("float32")
"""


@pytest.fixture
def regression():
    rng = np.random.default_rng(1)
    x = rng.normal(100.0, 30.0, (200, N_FEATURES)).astype("f4")
    return make_pipeline(StandardScaler(), LinearRegression()).fit(x, x @ [1.0, -2.0, 3.0] + 4.0)


@pytest.fixture
def onnx_file(regression, tmp_path):
    from skl2onnx import to_onnx

    path = tmp_path / "regression.onnx"
    path.write_bytes(to_onnx(regression, np.zeros((1, N_FEATURES), "f4")).SerializeToString())
    return path


def test_onnx_says_what_scikit_learn_says(regression, onnx_file):
    x = np.random.default_rng(2).normal(100.0, 30.0, (50, N_FEATURES)).astype("f4")
    model = load_onnx(onnx_file)

    whole, by_column = model(x), model(*x.T)

    (name,) = model.names
    np.testing.assert_allclose(whole[name][:, 0], regression.predict(x), rtol=1e-4)
    np.testing.assert_array_equal(whole[name], by_column[name])
    assert model(x[:0])[name].shape == (0, 1)


def test_an_onnx_file_that_does_not_fit_is_named(onnx_file, tmp_path):
    with pytest.raises(ConfigError, match="takes 3 columns, not 2"):
        load_onnx(onnx_file)(np.zeros((4, 2)))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_onnx(tmp_path / "absent.onnx")
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"other\.onnx is no ONNX model"):
        load_onnx(tmp_path / "other.onnx")


def test_a_scikit_learn_file_is_loaded_for_one_thread(tmp_path):
    x = np.random.default_rng(3).normal(size=(60, 2))
    forest = RandomForestClassifier(5, n_jobs=4, random_state=1).fit(x, x[:, 0] > 0)
    joblib.dump(make_pipeline(StandardScaler(), forest.fit(x, x[:, 0] > 0)), tmp_path / "no.joblib")
    joblib.dump(forest, tmp_path / "forest.joblib")

    got = load_sklearn(tmp_path / "forest.joblib")

    assert got.n_jobs == 1
    np.testing.assert_array_equal(got.predict_proba(x), forest.predict_proba(x))


def test_a_scikit_learn_file_that_does_not_fit_is_named(tmp_path, monkeypatch):
    import sklearn.base

    for name, value in (("dict", {"a": 1}), ("raw", LinearRegression())):
        (tmp_path / name).write_bytes(pickle.dumps(value))
        with pytest.raises(ConfigError, match="not a fitted estimator"):
            load_sklearn(tmp_path / name)
    (tmp_path / "cut").write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match="cut cannot be read"):
        load_sklearn(tmp_path / "cut")
    fitted = LinearRegression().fit(np.arange(3.0)[:, None], np.arange(3.0))
    with monkeypatch.context() as older:
        older.setattr(sklearn.base, "__version__", "1.0.0")
        joblib.dump(fitted, tmp_path / "old.joblib")
    with pytest.raises(ConfigError, match=r"written by scikit-learn 1\.0\.0.* train it again"):
        load_sklearn(tmp_path / "old.joblib")


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("kind", ["onnx", "sklearn"])
def test_a_module_with_a_model_runs_as_in_the_stream(
    regression, onnx_file, write_modules, kind, isolate
):
    name = "model." + kind
    call = "model(psf_flux, psf_flux_err, snr)['variable'][:, 0]"
    if kind == "sklearn":
        call = "model.predict(pd.concat([psf_flux, psf_flux_err, snr], axis=1).to_numpy())"
    source = SOURCE.format(loader=f"load_{kind}", file=name, call=call)
    folder = write_modules(scored=source)
    place = folder / "scored" / name
    if kind == "onnx":
        place.write_bytes(onnx_file.read_bytes())
    else:
        joblib.dump(regression, place)
    alerts = sample_alerts(30, cutouts=False)

    with Runner(find_contributions(folder), isolate=isolate) as runner:
        outcome = runner.run(alerts)

    assert outcome.status == {"scored": "ok"}, outcome.reasons
    x = np.stack([alerts[n].to_numpy() for n in ("psfFlux", "psfFluxErr", "snr")], axis=1)
    got = outcome.outputs.column("scored@1.0.0:score").to_numpy()
    np.testing.assert_allclose(got, regression.predict(x), rtol=1e-3)
