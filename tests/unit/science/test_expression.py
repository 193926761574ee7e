"""An expression means what SQL means by it, nulls included, and nothing else can be said in it."""

import pickle
import sqlite3

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.alerts.columns import Column
from broker.cli.main import cli
from broker.errors import ConfigError
from broker.science import Runner, find_contributions, sample_alerts
from broker.science.expression import MAX_WORDS, read_expression
from broker.science.inputs import to_series

COLUMNS = {
    "snr": Column("snr", "float32", "", ""),
    "age_days": Column("ageDays", "float64", "d", ""),
    "n_dia_sources": Column("nDiaSources", "int32", "", ""),
    "band": Column("band", "string", "", ""),
    "is_negative": Column("isNegative", "bool", "", "", nullable=False),
    "is_hostless": Column("isHostless", "bool", "", ""),
}
VALUES = {
    "snr": [1.5, -7.0, None, 20.0, 0.0, 3.25],
    "age_days": [0.0, None, 2.0, 30.0, None, 0.5],
    "n_dia_sources": [1, 2, None, 4, 0, None],
    "band": ["g", "r", None, "it's", "g", "z"],
    "is_negative": [False, True, True, False, False, True],
    "is_hostless": [True, None, False, None, True, False],
}


def chosen(text):
    expression = read_expression(text, COLUMNS)
    series = [
        to_series(pa.array(VALUES[n], COLUMNS[n].arrow_type), nullable=COLUMNS[n].nullable)
        for n in expression.inputs
    ]
    return expression(*series).tolist()


def chosen_by_sqlite(text):
    """Return what another implementation of SQL's logic chooses."""
    with sqlite3.connect(":memory:") as database:
        database.execute(f"CREATE TABLE alert ({', '.join(VALUES)})")
        rows = zip(*VALUES.values(), strict=True)
        database.executemany(f"INSERT INTO alert VALUES ({','.join('?' * len(VALUES))})", rows)
        got = database.execute(f"SELECT rowid FROM alert WHERE {text}").fetchall()
    numbers = {row[0] - 1 for row in got}
    return [index in numbers for index in range(len(VALUES["snr"]))]


@pytest.mark.parametrize(
    "text",
    [
        "snr > 2",
        "NOT snr > 2",
        "snr > 2 OR age_days < 1",
        "snr > 2 and not (age_days < 1 or is_negative)",
        "band IN ('g', 'r') AND n_dia_sources >= 1",
        "band NOT IN ('g')",
        "band = 'it''s'",
        "band <> 'g'",
        "snr BETWEEN -7 AND 1.5",
        "snr NOT BETWEEN -7 AND 1.5 AND is_negative",
        "age_days IS NULL OR is_hostless",
        "is_hostless IS NOT NULL AND NOT is_hostless",
        "is_hostless = is_negative",
        "is_negative = TRUE",
        "-snr * 2 + age_days / 0.5 > 1e0",
        "1.0 / snr > 0.1",  # divided by zero: null, not true
        "NOT 1.0 / snr > 0.1",
        "snr - 1 - 1 < snr - (1 - 1)",
        "NOT NOT NOT is_hostless",
        "snr > 100 AND age_days > 0",
    ],
)
def test_it_means_what_sql_means(text):
    assert chosen(text) == chosen_by_sqlite(text)


@st.composite
def conditions(draw, depth=3):
    if depth == 0:
        return draw(
            st.sampled_from(
                [
                    "snr > 1",
                    "age_days <= 2",
                    "n_dia_sources = 2",
                    "band = 'g'",
                    "is_negative",
                    "is_hostless",
                    "snr IS NULL",
                    "abs(snr) < 8",
                    "snr + age_days > 1",
                ]
            )
        )
    kind = draw(st.sampled_from(["AND", "OR", "NOT", "leaf"]))
    if kind == "leaf":
        return draw(conditions(depth=0))
    if kind == "NOT":
        return f"NOT ({draw(conditions(depth=depth - 1))})"
    return f"({draw(conditions(depth=depth - 1))} {kind} {draw(conditions(depth=depth - 1))})"


@settings(max_examples=80)
@given(text=conditions())
def test_logic_of_three_values_is_that_of_sql(text):
    assert chosen(text) == chosen_by_sqlite(text)


def test_functions_are_those_of_numpy():
    assert chosen("greatest(abs(snr), 5) > 6.5") == [False, True, False, True, False, False]
    assert chosen("log10(least(snr, 10)) >= 1") == [False, False, False, True, False, False]
    assert chosen("sqrt(snr) IS NULL") == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("snrr > 2", "do you mean snr"),
        ("snr > 'g'", "number cannot be compared with a text"),
        ("band > 'g'", "= and <> only"),
        ("snr", "is a number"),
        ("snr > 2 AND band", "not a text"),
        ("snr > 2 snr", "does not belong there"),
        ("snr >", "missing at the end"),
        ("(snr > 2", "\\) is missing"),
        ('band = "g"', "single quotes"),
        ("band + 1 > 2", "arithmetic is for numbers"),
        ("exp(snr) > 2", "there is no function exp"),
        ("abs(snr, 2) > 2", "takes 1 values, not 2"),
        ("1 < 2", "reads no column"),
        ("__import__('os') = 1", "there is no function"),
        ("snr.__class__ = 1", "cannot be read"),
        ("history IS NULL", "there is no column"),
        ("(" * 60 + "snr > 1" + ")" * 60, "too many parentheses"),
        (" AND ".join(["snr > 1"] * MAX_WORDS), "at most"),
        ("snr > 2; DROP TABLE alert", "cannot be read"),
        ("snr NOT 2", "after NOT comes IN or BETWEEN"),
        ("", "missing at the end"),
    ],
)
def test_what_cannot_be_read_is_refused_in_plain_words(text, said):
    with pytest.raises(ConfigError, match=said):
        read_expression(text, COLUMNS)


def test_it_can_be_sent_to_a_process_and_wire_names_work():
    expression = pickle.loads(pickle.dumps(read_expression("ageDays < 1", COLUMNS)))

    assert expression.inputs == ("age_days",)
    assert expression(pd.Series([0.5, np.nan, 3.0])).tolist() == [True, False, False]


def called(home, *arguments):
    done = CliRunner().invoke(cli, ["topic", "new", *arguments], env={"BROKER_HOME": str(home)})
    return done.output, done.exception


@pytest.mark.slow
def test_a_user_s_topic_is_chosen_from_in_the_child_process(tmp_path):
    where = "snr > 60 AND (rise_rate > 0 OR contextClass = 'hosted')"
    _, error = called(tmp_path, "rising-users", "--where", where, "--doc", 'For "tests" — ours.')
    assert error is None
    alerts = sample_alerts(60, seed=3)
    found = find_contributions(filters=tmp_path / "filters")
    wanted = found.filters[[f.topic for f in found.filters].index("rising-users")]
    assert wanted.doc == 'For "tests" — ours.'

    with Runner(found) as runner:
        outcome = runner.run(alerts)

    rise = np.nan_to_num(outcome.outputs["rise_rate@1.0.0:riseRate"].to_numpy(), nan=-1.0)
    hosted = np.array(outcome.outputs["context@1.0.0:contextClass"].to_pylist()) == "hosted"
    expected = (alerts["snr"].to_numpy() > 60.0) & ((rise > 0.0) | hosted)
    assert outcome.filter_status["rising-users"] == "ok"
    assert 0 < expected.sum() < 60
    np.testing.assert_array_equal(outcome.passes["rising-users"], expected)


def test_a_topic_that_cannot_be_is_refused_and_leaves_no_file(tmp_path):
    for arguments, said in (
        (["young-supernova", "--where", "snr > 1", "--doc", "x"], "already"),
        (["a-topic", "--where", "snrr > 1", "--doc", "x"], "no column"),
        (["A Topic", "--where", "snr > 1", "--doc", "x"], "lower-case"),
        (["a-topic", "--where", "snr > 1", "--doc", " "], "for whom"),
    ):
        _, error = called(tmp_path, *arguments)
        assert isinstance(error, ConfigError)
        assert said in error.message
    assert not (tmp_path / "filters").exists()


def test_a_file_of_another_form_is_refused_by_name(tmp_path):
    (tmp_path / "x.toml").write_text('topic = "x"\nwhere = "snr > 1"\ndoc = "y"\n')
    with pytest.raises(ConfigError, match=r"x\.toml: max_pass_fraction is missing"):
        find_contributions(filters=tmp_path)
