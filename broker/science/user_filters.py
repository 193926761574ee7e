"""Filters that users gave as one expression, each a small TOML file in a folder."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from broker.errors import ConfigError
from broker.science.checks import CheckError, Subject
from broker.science.contract import Parameter, TopicFilter, check_declaration
from broker.science.expression import read_expression
from broker.science.profile import profile
from broker.science.registry import Contributions, order_contributions, provided_columns
from broker.science.samples import sample_alerts

MAX_MS_PER_ALERT = 0.05
"""A filter of one expression may take so long. [ms]"""

_FREE_MS = 20.0  # what a call costs on a machine that is busy with something else
_SAMPLE = 200
_KEYS = {"topic": str, "where": str, "doc": str, "max_pass_fraction": float}


def user_filter(
    topic: str, where: str, *, doc: str, max_pass_fraction: float, among: Contributions, file: str
) -> TopicFilter:
    """Return a filter of one expression.

    Parameters
    ----------
    topic : str
        The topic's name: lower-case words with dashes.
    where : str
        What chooses an alert; see `broker.science.expression`.
    doc : str
        For whom the topic is.
    max_pass_fraction : float
        Of a night's alerts it may choose at most this part.
    among : Contributions
        Modules whose outputs it may read.
    file : str
        Where it is kept.

    Raises
    ------
    ConfigError
        If the expression or the declaration is not allowed.
    """
    columns = dict(among.columns or provided_columns())
    columns |= {c.python_name: c for c in among.output_columns}
    expression = read_expression(where, columns)
    if not doc.strip():
        raise ConfigError(f"{file}: say in doc for whom the topic {topic} is", topic=topic)
    made = TopicFilter(
        expression,
        tuple(Parameter(name) for name in expression.inputs),
        doc=doc,
        file=file,
        topic=topic,
        max_pass_fraction=max_pass_fraction,
    )
    check_declaration(made)
    return made


def with_user_filters(contributions: Contributions, folder: str | Path) -> Contributions:
    """Return contributions with the filters of a folder; a folder that is absent has none.

    Raises
    ------
    ConfigError
        If a file is not as it should be, or a topic is there twice. The message names the files.
    """
    place = Path(folder)
    if not place.is_dir():
        return contributions
    added = [_read(path, contributions) for path in sorted(place.glob("*.toml"))]
    if not added:
        return contributions
    everything = [
        *contributions.modules,
        *contributions.shadows,
        *contributions.filters,
        *added,
    ]
    return order_contributions(everything, path=contributions.path, columns=contributions.columns)


def _read(path: Path, among: Contributions) -> TopicFilter:
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", path=str(path)) from error
    for key, kind in _KEYS.items():
        if not isinstance(values.get(key), kind):
            raise ConfigError(f"{path}: {key} is missing or no {kind.__name__}", path=str(path))
    unknown = sorted(values.keys() - _KEYS.keys())
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]} is unknown; keys are {', '.join(_KEYS)}")
    try:
        return user_filter(
            values["topic"],
            values["where"],
            doc=values["doc"],
            max_pass_fraction=values["max_pass_fraction"],
            among=among,
            file=str(path),
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", path=str(path)) from error


@dataclass(frozen=True)
class Trial:
    """What a filter did with some alerts."""

    n_alerts: int
    passed: int
    ms_per_alert: float


def measure(chosen: TopicFilter, among: Contributions, alerts: pa.Table | None = None) -> Trial:
    """Try a filter on alerts, or on a sample that is no model of the sky.

    Raises
    ------
    ConfigError
        If it, or a module that it reads from, fails, if it takes more than `MAX_MS_PER_ALERT`,
        or if more of the given alerts pass than it declares.
    """
    everything = [*among.modules, chosen]
    contributions = order_contributions(everything, path=among.path, columns=among.columns)
    given = sample_alerts(_SAMPLE, cutouts=False) if alerts is None else alerts
    subject = Subject(chosen, contributions)
    try:
        passes = subject.answer(given).column("passes").to_numpy()
    except CheckError as error:
        raise ConfigError(f"{chosen.topic}: {error}", topic=chosen.topic) from error
    cost = profile(contributions, given, frozenset({chosen.topic}))[0]
    if cost.ms_per_alert * given.num_rows > _FREE_MS and cost.ms_per_alert > MAX_MS_PER_ALERT:
        raise ConfigError(
            f"{chosen.topic} takes {cost.ms_per_alert:.3g} ms an alert; at most {MAX_MS_PER_ALERT}"
        )
    if alerts is not None and passes.mean() > chosen.max_pass_fraction:
        raise ConfigError(
            f"{passes.sum()} of {len(passes)} alerts pass {chosen.topic}, more than the "
            f"{100 * chosen.max_pass_fraction:.3g} % that it declares",
            topic=chosen.topic,
        )
    return Trial(len(passes), int(passes.sum()), cost.ms_per_alert)


def store_user_filter(chosen: TopicFilter, folder: Path) -> Path:
    """Write a filter that `user_filter` has checked; return its file.

    Raises
    ------
    ConfigError
        If there is a file of that topic.
    """
    path = folder / f"{chosen.topic}.toml"
    if path.exists():
        raise ConfigError(f"{path} is there already; delete it to give that topic anew")
    values = {
        "topic": chosen.topic,
        "where": getattr(chosen.function, "text", ""),
        "doc": chosen.doc,
        "max_pass_fraction": float(chosen.max_pass_fraction),
    }
    # A JSON string without escapes of single characters is a TOML string.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
