"""A wrong declaration is refused when it is made; results are judged in plain words."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from broker.errors import ConfigError
from broker.science import Column, Cutouts, LightCurves, science_module, topic_filter
from broker.science.contract import Parameter
from broker.science.inputs import to_series
from broker.science.outputs import ContractError, to_columns

RATE = (Column("rate", "float32", "nJy / d", "A rate."),)


def test_a_declared_function_can_be_called_as_it_is():
    @science_module(version="1.2.3", outputs=RATE)
    def rate(psf_flux, history: LightCurves, cutout_science: Cutouts, *, factor: float = 2.0):
        """Double the flux."""
        return psf_flux * factor

    assert rate(3.0, None, None) == 6.0
    assert rate(3.0, None, None, factor=3.0) == 9.0
    assert rate.label == "rate@1.2.3"
    assert rate.inputs == ("psf_flux", "history", "cutout_science")
    assert rate.parameters[1:] == (
        Parameter("history", "light-curves"),
        Parameter("cutout_science", "cutouts"),
    )
    assert rate.title == "Double the flux."
    assert list(rate.qualified) == ["rate@1.2.3:rate"]


def plain(psf_flux):
    return psf_flux


def with_star(*columns):
    return columns


def with_open_setting(psf_flux, *, factor):
    return psf_flux * factor


def with_model(psf_flux, model):
    return psf_flux, model


def without_inputs():
    return None


@pytest.mark.parametrize(
    ("function", "given", "words"),
    [
        (plain, {"version": "1"}, "three numbers, as 1.0.0"),
        (plain, {"outputs": ()}, "declares no outputs"),
        (plain, {"outputs": (Column("a_b", "float32", "", ""),)}, "'a_b' is not in camelCase"),
        (plain, {"outputs": (Column("fluxABC", "float32", "", ""),)}, "not in camelCase"),
        (plain, {"outputs": (Column("a", "float16", "", ""),)}, "float16 is none of"),
        (plain, {"outputs": RATE * 2}, "declares rate twice"),
        (plain, {"name": "Rate"}, "use snake_case"),
        (with_star, {}, r"has \*columns; name each input"),
        (with_open_setting, {}, "the setting factor without a default"),
        (with_model, {}, "both setup= and a parameter named model"),
        (plain, {"setup": dict}, "both setup= and a parameter named model"),
        (without_inputs, {}, "has no inputs"),
    ],
)
def test_a_wrong_module_is_refused_and_its_file_named(function, given, words):
    with pytest.raises(ConfigError, match=words) as error:
        science_module(**({"version": "1.0.0", "outputs": RATE} | given))(function)

    assert __file__ in error.value.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"topic": "Young_SN"}, "lower-case words and dashes"),
        ({"max_pass_fraction": 0.0}, "above 0 and at most 1"),
        ({"max_pass_fraction": 1.5}, "above 0 and at most 1"),
    ],
)
def test_a_wrong_filter_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        topic_filter(**({"topic": "young", "max_pass_fraction": 0.1} | given))(plain)


NAN = float("nan")


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float32", np.array([1.5, np.nan, np.inf]), [1.5, None, None]),
        ("float32", np.array([1e300, 2.0, -np.inf]), [None, 2.0, None]),
        ("float32", pd.array([1.5, None, 2.0], dtype="Float64"), [1.5, None, 2.0]),
        ("float64", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("float64", pd.Series([1.5, None, NAN], dtype=object), [1.5, None, None]),
        ("int32", np.array([1.0, np.nan, 3.0]), [1, None, 3]),
        ("int64", pd.array([2**60 + 1, None, 3], dtype="Int64"), [2**60 + 1, None, 3]),
        ("bool", np.array([True, False, True]), [True, False, True]),
        ("bool", pd.array([True, None, False], dtype="boolean"), [True, None, False]),
        ("string", pd.Series(["a", None, NAN]), ["a", None, None]),
        ("string", np.array(["a", "b", "c"]), ["a", "b", "c"]),
        ("string", pd.Series(["a", "b", "c"], dtype="string"), ["a", "b", "c"]),
        ("binary", pd.Series([b"a", None, b"c"]), [b"a", None, b"c"]),
    ],
)
def test_results_become_the_declared_type_and_what_is_not_finite_null(dtype, values, expected):
    column = Column("value", dtype, "", "")

    (got,) = to_columns({"value": values}, (column,), 3)

    assert got.type == column.arrow_type
    assert got.to_pylist() == expected


@pytest.mark.parametrize(
    ("dtype", "values", "words"),
    [
        ("float32", np.array([True, False, True]), "declared float32 and came as bool"),
        ("float32", pd.Series(["a", 1.0, 2.0]), "declared float32 and came as str"),
        ("int32", np.array([1.5, 2.0, 3.0]), "has fractions"),
        ("int32", np.array([2**40, 1, 1]), "does not fit int32"),
        ("bool", np.array([1, 0, 1]), "declared bool and came as int64"),
        ("string", np.array([1.0, 2.0, 3.0]), "declared string and came as float64"),
        ("string", pd.Series(["a", 1, "b"]), "declared string and came as int"),
        ("string", ["x" * 100_000] * 3, "at most 4096 an alert"),
        ("float32", np.zeros((3, 2)), r"has shape \(3, 2\)"),
        ("float32", 1.0, "column of type float"),
    ],
)
def test_results_of_another_type_are_refused(dtype, values, words):
    with pytest.raises(ContractError, match=words):
        to_columns({"value": values}, (Column("value", dtype, "", ""),), 3)


def test_one_output_may_come_as_a_series_and_a_row_label_does_not_matter():
    (got,) = to_columns(pd.Series([1.0, 2.0], index=[7, 5]), RATE, 2)

    assert got.to_pylist() == [1.0, 2.0]


@pytest.mark.parametrize("values", [[1, 2], [1, None]])
def test_the_type_of_an_input_depends_on_its_declaration_never_on_the_batch(values):
    kinds = {
        pa.int64(): "float64",
        pa.float32(): "float32",
        pa.bool_(): "boolean",
        pa.string(): "object",
    }
    for kind, expected in kinds.items():
        cast = [None if v is None else str(v) if kind == pa.string() else v for v in values]
        cast = [None if v is None else bool(v) for v in values] if kind == pa.bool_() else cast
        assert to_series(pa.array(cast, kind), nullable=True).dtype == expected


def test_inputs_that_are_never_null_keep_their_type():
    assert to_series(pa.array([1, 2], pa.int32()), nullable=False).dtype == "int32"
    assert to_series(pa.array([True]), nullable=False).dtype == "bool"
