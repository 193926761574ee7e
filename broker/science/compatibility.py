"""Modules written for other brokers: Spark's pandas UDFs, and ZTF's names for their inputs.

Nothing of Spark is imported here: what `@pandas_udf` returns keeps the plain function as `.func`.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.alerts.columns import UPPER_LIMIT, Column, camel_case, snake_case
from broker.errors import ConfigError
from broker.science.contract import (
    LIGHT_CURVES,
    SERIES,
    Parameter,
    ScienceModule,
    check_declaration,
)
from broker.science.light_curves import LightCurves
from broker.units import (
    AB_ZERO_POINT_NJY,
    SECONDS_PER_DAY,
    flux_err_to_mag_err,
    flux_to_mag,
    mjd_tai_to_jd_utc,
)

_HALF_EXPOSURE_S = 15.0
"""ZTF's `jd` is the start of an exposure of 30 s."""

_FID = np.array([np.nan, 1.0, 2.0, 3.0, np.nan, np.nan, np.nan])
"""ZTF's number of a band, by index into `BANDS`; the last for an unknown band."""

_SPARK_TYPES = {
    "double": "float64",
    "float": "float32",
    "int": "int32",
    "bigint": "int64",
    "boolean": "bool",
    "string": "string",
}


@dataclass(frozen=True)
class _View:
    """One ZTF-style input: the canonical columns it is made of, and how."""

    parameters: tuple[Parameter, ...]
    make: Callable[..., Any]


def _jd(survey: Any, mjd: Any) -> Any:
    jd = pd.Series(mjd_tai_to_jd_utc(mjd))
    return jd - np.where(survey == "ztf", _HALF_EXPOSURE_S / SECONDS_PER_DAY, 0.0)


def _fid(band: Any) -> Any:
    return band.map({"g": 1.0, "r": 2.0, "i": 3.0}).astype("float64")


def _mag_of(flux: Any) -> Any:
    return pd.Series(flux_to_mag(np.abs(flux)))


def _mag_err_of(flux: Any, flux_err: Any) -> Any:
    return pd.Series(flux_err_to_mag_err(flux_err, np.abs(flux)))


def _lists(history: LightCurves, values: NDArray[Any]) -> Any:
    result = np.empty(history.n_alerts, dtype=object)
    result[:] = np.split(values, history.starts[1:-1]) if history.n_alerts else []
    return pd.Series(result)


def _each(values: Callable[[LightCurves], Any]) -> Callable[[LightCurves], Any]:
    return lambda history: _lists(history, np.asarray(values(history), dtype=np.float64))


def _limit(history: LightCurves) -> Any:
    """5-sigma limiting magnitude of the upper limits; NaN for the others."""
    error = history.flux_err.astype(np.float64)
    faintest = AB_ZERO_POINT_NJY - 2.5 * np.log10(5.0 * np.where(error > 0.0, error, np.nan))
    is_limit = np.zeros(len(history), bool) if history.kind is None else history.kind == UPPER_LIMIT
    return np.where(is_limit, faintest, np.nan)


def _same(value: Any) -> Any:
    return value


def _series(*names: str, make: Callable[..., Any] = _same) -> _View:
    return _View(tuple(Parameter(name, SERIES) for name in names), make)


def _history(make: Callable[[LightCurves], Any]) -> _View:
    return _View((Parameter("history", LIGHT_CURVES),), _each(make))


VIEWS: dict[str, _View] = {
    "candid": _series("dia_source_id"),
    "objectId": _series("dia_object_id"),
    "jd": _series("survey", "midpoint_mjd_tai", make=_jd),
    "fid": _series("band", make=_fid),
    "magpsf": _series("psf_flux", make=_mag_of),
    "sigmapsf": _series("psf_flux", "psf_flux_err", make=_mag_err_of),
    "isdiffpos": _series(
        "is_negative", make=lambda negative: negative.map({False: "t", True: "f"})
    ),
    "magnr": _series("template_flux", make=lambda flux: pd.Series(flux_to_mag(flux))),
    "sigmagnr": _series("template_flux", "template_flux_err", make=_mag_err_of),
    "rb": _series("reliability"),
    "drb": _series("reliability"),
    "ndethist": _series("n_dia_sources"),
    "jdstarthist": _series("survey", "first_mjd_tai", make=_jd),
    "fwhm": _series("fwhm"),
    "elong": _series("elongation"),
    "diffmaglim": _series("limiting_mag"),
    "magzpsci": _series("zero_point"),
    "ssnamenr": _series("ss_object_id"),
    "ssdistnr": _series("ss_separation"),
    "cjd": _history(lambda h: mjd_tai_to_jd_utc(h.mjd)),
    "cfid": _history(lambda h: _FID[h.band_code]),
    "cmagpsf": _history(lambda h: flux_to_mag(np.abs(h.flux))),
    "csigmapsf": _history(lambda h: flux_err_to_mag_err(h.flux_err, np.abs(h.flux))),
    "cdiffmaglim": _history(_limit),
}
"""ZTF-style names that a wrapped function may ask for.

Magnitudes are AB. Names with a `c` are one array an alert, history and alert together, oldest
first; `cjd` is mid-exposure. In `cmagpsf` an upper limit is NaN. Other names are canonical ones.
"""


def _behind_views(
    function: Callable[..., Any],
    views: tuple[_View, ...],
    parameters: tuple[Parameter, ...],
    output: str,
) -> Callable[..., pd.DataFrame]:
    """Return a function of canonical inputs that calls one of ZTF-style inputs."""

    def run(*columns: Any) -> pd.DataFrame:
        given = dict(zip(parameters, columns, strict=True))
        result = function(*(view.make(*(given[p] for p in view.parameters)) for view in views))
        return result if isinstance(result, pd.DataFrame) else pd.DataFrame({output: result})

    return run


def wrap_pandas_udf(
    function: Any,
    *,
    columns: Sequence[str],
    name: str,
    version: str,
    outputs: tuple[Column, ...] = (),
) -> ScienceModule:
    """Make a science module of a Spark pandas UDF, unchanged.

    Parameters
    ----------
    function : callable
        What `@pandas_udf` returned, or the plain function; from Series to a Series or a
        DataFrame. It gets copies that it may write to.
    columns : sequence of str
        Its inputs in order: names of canonical columns, catalogue matches or outputs of other
        modules in snake_case or camelCase, or the names in `VIEWS`.
    name, version : str
        As for any science module.
    outputs : tuple of Column, optional
        What it returns; default one column of the module's name, with the UDF's return type.

    Returns
    -------
    ScienceModule
        Assign it to a name at the top of `module.py`.

    Raises
    ------
    ConfigError
        If a name, a version or the return type is not allowed.
    """
    plain = getattr(function, "func", function)
    outputs = outputs or (_declared_output(function, name),)
    views = tuple(VIEWS.get(c) or _View((Parameter(snake_case(c)),), _same) for c in columns)
    parameters = tuple(dict.fromkeys(p for view in views for p in view.parameters))
    wrapped = _behind_views(plain, views, parameters, outputs[0].name)
    wrapped.__name__ = wrapped.__qualname__ = name
    wrapped.__module__ = sys._getframe(1).f_globals["__name__"]
    module = ScienceModule(
        wrapped,
        parameters,
        read_only=False,
        doc=inspect.getdoc(plain) or "",
        file=plain.__code__.co_filename,
        name=name,
        version=version,
        outputs=outputs,
    )
    check_declaration(module)
    return module


def _declared_output(function: Any, name: str) -> Column:
    declared: Any = getattr(function, "returnType", None)
    spark_type = str(declared) if declared is None else declared.simpleString()
    if spark_type not in _SPARK_TYPES:
        raise ConfigError(
            f"{name} returns {spark_type}; give outputs=(Column(…), …), or a return type among "
            f"{', '.join(_SPARK_TYPES)}",
            function=name,
        )
    return Column(camel_case(name), _SPARK_TYPES[spark_type], "", f"What {name} returns.")
