"""The report on a module says what it would have done, from what was known at the time."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pytest
import yaml

import broker
from broker.alerts.columns import CANONICAL
from broker.archive import ROWS, Archive
from broker.catalog.registry import Catalogs
from broker.cli.module import command as module_command
from broker.errors import ConfigError
from broker.ops.alert_tables import Reading, as_of, read_files, read_night
from broker.ops.module_page import plain_report, render_page, write_report
from broker.ops.module_report import earlier_code, earlier_stored, make_report
from broker.science import Runner, find_contributions, sample_alerts
from broker.simulation.packets import simulate_packets
from broker.types import Run, night_of

SOURCE = '''
import pandas as pd
from broker.science import Column, LightCurves, science_module, topic_filter

@science_module(version="{version}", outputs=(
    Column("newestMjd", "float64", "d", "Time of the newest entry."),
    Column("kind", "string", "", "Bright or faint."),
))
def newest(history: LightCurves, snr: pd.Series) -> pd.DataFrame:
    """Say when the newest entry was."""
    {fails}
    kind = snr.gt({limit}).map({{True: "bright", False: "faint"}})
    return pd.DataFrame({{"newestMjd": history.max(history.mjd), "kind": kind}})

@topic_filter(topic="bright", max_pass_fraction=0.5)
def bright(kind: pd.Series) -> pd.Series:
    """For tests."""
    return kind == "bright"

@topic_filter(topic="all-of-them", max_pass_fraction=0.5)
def everything(snr: pd.Series) -> pd.Series:
    """For tests."""
    return snr > -1.0
'''


@pytest.fixture
def contributed(tmp_path):
    """Return a function that writes the module into a folder and finds it."""

    def write(folder="now", version="1.1.0", limit=50.0, fails="pass"):
        place = tmp_path / folder / "newest"
        place.mkdir(parents=True)
        text = SOURCE.format(version=version, limit=limit, fails=fails)
        (place / "module.py").write_text(text, encoding="utf-8")
        return find_contributions(tmp_path / folder, catalogs={})

    return write


@pytest.fixture(scope="module")
def alerts():
    return sample_alerts(60, seed=5, catalogs={}, n_epochs=8)


def with_later_entries(alerts, days):
    """Return alerts whose histories hold an entry of a later time, as no packet should."""
    rows = alerts.column("history").to_pylist()
    for history in rows:
        later = history[-1] | {"midpointMjdTai": history[-1]["midpointMjdTai"] + days}
        history.append(later)
    at = alerts.schema.get_field_index("history")
    column = pa.array(rows, CANONICAL.field("history").type)
    return alerts.set_column(at, alerts.schema.field(at), column)


@pytest.mark.parametrize("days", [1e-5, 0.01, 300.0])
def test_nothing_dated_later_than_an_alert_is_seen(alerts, days):
    cut, n_cut = as_of(with_later_entries(alerts, days))

    assert n_cut == alerts.num_rows
    assert cut.equals(alerts)


def test_a_module_gets_no_later_entry_even_from_a_packet_that_has_one(tmp_path, contributed):
    """Told by a module that looks for the newest time, on packets that are archived."""
    archive, place = Archive(tmp_path / "archive", Run("live")), "alerts.ztf"
    packets = list(simulate_packets("ztf", 6, seed=2))
    times = np.full(7, 1_700_000_000_000)
    values = pa.array([*packets, packets[0]])
    archive.write(place, 0, [pa.table([np.arange(7), times, values], schema=ROWS)])
    night, reading = archive.nights("ztf")[0], Reading()

    (table,) = read_night(archive, "ztf", night, Catalogs(tmp_path / "none"), reading)
    report = make_report([as_of(with_later_entries(table, 2.0))[0]], contributed(), "newest",
                         reading=reading, isolate=False)  # fmt: skip

    assert table.num_rows == 6
    assert report["repeats"] == 1
    newest = report["modules"][0]["outputs"][0]["quantiles"][-1]
    assert newest == max(table.column("midpointMjdTai").to_pylist())


def test_packets_that_cannot_be_read_are_counted_and_the_rest_goes_on(tmp_path):
    for number, packet in enumerate(simulate_packets("ztf", 3)):
        (tmp_path / f"{number}.avro").write_bytes(packet if number else packet[:500])
    reading = Reading()

    (table,) = read_files([tmp_path], Catalogs(tmp_path / "none"), reading)

    assert table.num_rows == 2
    assert list(reading.unreadable) == [str(tmp_path / "0.avro")]


def test_the_figures_are_those_of_the_alerts(alerts, contributed):
    report = make_report([alerts.slice(0, 25), alerts.slice(25)], contributed(), "newest",
                         isolate=False)  # fmt: skip
    snr = alerts.column("snr").to_numpy()
    everything, bright = sorted(report["topics"], key=lambda t: t["name"])

    assert report["alerts"] == 60
    assert bright["passed"] == (snr > 50.0).sum()
    assert bright["fraction"] == pytest.approx((snr > 50.0).mean())
    assert not everything["withinLimit"]
    (shared,) = bright["overlap"]
    assert (shared["topic"], shared["both"]) == ("all-of-them", bright["passed"])
    assert shared["shareOfThat"] == pytest.approx(bright["passed"] / (snr > -1.0).sum())
    nights = {n["night"]: n["alerts"] for n in bright["nights"]}
    expected = [night_of(mjd) for mjd in alerts.column("midpointMjdTai").to_pylist()]
    assert nights == {night: expected.count(night) for night in set(expected)}
    cost = report["modules"][0]["cost"]
    assert 0.0 < cost["medianMs"] <= cost["p99Ms"]
    assert 0.0 < cost["aloneMedianMs"] <= cost["aloneP99Ms"]
    assert cost["peakMb"] > 0.0


def test_examples_are_the_same_whatever_the_batches(alerts, contributed):
    found = contributed()
    one, other = (
        plain_report(make_report(batches, found, "newest", isolate=False))["examples"]
        for batches in ([alerts], [alerts.slice(0, 7), alerts.slice(7)])
    )

    assert one == other
    assert len(one["bright"]) > 0


def test_alerts_that_differ_from_the_previous_code_are_named(alerts, contributed):
    now, before = contributed(), contributed("before", "1.0.0", limit=60.0)
    snr = alerts.column("snr").to_numpy()
    with Runner(before, isolate=False) as runner:
        report = make_report([alerts], now, "newest", earlier=earlier_code(runner),
                             against="before", isolate=False)  # fmt: skip

    differ = {one["column"]: one for one in report["differences"]}
    expected = alerts.filter(pa.array((snr > 50.0) & (snr <= 60.0)))["diaSourceId"].to_pylist()
    assert expected
    assert [d["diaSourceId"] for d in differ["kind"]["listed"]] == expected
    assert {(d["before"], d["now"]) for d in differ["kind"]["listed"]} == {("faint", "bright")}
    assert [d["diaSourceId"] for d in differ["topic bright"]["listed"]] == expected
    assert differ["newestMjd"]["differ"] == 0


def test_a_stored_version_is_compared_by_its_own_label(alerts, contributed):
    found = contributed()
    times = dict(
        zip(
            alerts.column("diaSourceId").to_pylist(),
            alerts.column("midpointMjdTai").to_pylist(),
            strict=True,
        )
    )
    changed = next(iter(times))

    def find(_survey, name):
        value = times[name] + (name == changed)
        outputs = {"newest@1.0.0": {"newestMjd": value}, "newest@0.9.0": {"newestMjd": 0.0}}
        return {"outputs": outputs, "topics": ["bright"]}

    earlier = earlier_stored(find, found.modules, "1.0.0", ["bright"])
    report = make_report([alerts], found, "newest", earlier=earlier, isolate=False)

    differ = {one["column"]: one for one in report["differences"]}
    assert [d["diaSourceId"] for d in differ["newestMjd"]["listed"]] == [changed]
    assert differ["newestMjd"]["largest"] == pytest.approx(1.0)
    assert differ["topic bright"]["differ"] == (alerts.column("snr").to_numpy() <= 50.0).sum()


def test_failures_are_told_with_their_reason(alerts, contributed):
    found = contributed(fails='raise ValueError("no luck")')
    report = make_report([alerts], found, "newest", isolate=False)

    (reason,) = report["modules"][0]["failures"]
    assert "no luck" in reason
    assert report["modules"][0]["failures"][reason] == 60
    assert "no luck" in render_page(report)


class Links(HTMLParser):
    """Collects what a page would load, and checks that its tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.loads, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_the_json_is_strict(alerts, contributed, tmp_path):
    report = make_report([alerts], contributed(), "newest", isolate=False)
    page, data = write_report(report, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)

    assert not links.open
    assert links.loads
    assert all(link.startswith("data:image/png;base64,") for link in links.loads)
    assert "<script" not in text
    assert not re.search(r"https?://", text)
    assert json.loads(data.read_text(encoding="utf-8")) == plain_report(report)


def test_no_alerts_make_no_report(contributed):
    with pytest.raises(ConfigError, match="no alerts"):
        make_report([], contributed(), "newest", isolate=False)


def test_the_summary_says_what_a_reviewer_asks_first(alerts, contributed, tmp_path):
    with Runner(contributed("before", "1.0.0", limit=60.0), isolate=False) as runner:
        report = make_report([alerts], contributed(), "newest", earlier=earlier_code(runner),
                             against="before", isolate=False)  # fmt: skip
    write_report(report, tmp_path)
    text = (tmp_path / "newest-report.md").read_text(encoding="utf-8")

    everything = next(t for t in report["topics"] if t["name"] == "all-of-them")
    assert f"| all-of-them | {everything['passed']} |" in text
    assert "**too many**" in text
    kind = next(d for d in report["differences"] if d["column"] == "kind")
    assert f"kind differs for {kind['differ']}" in text


def test_the_workflow_types_commands_that_exist():
    path = Path(broker.__file__).parent.parent / "deploy" / "module-report.yml"
    steps = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["report"]["steps"]
    scripts = "\n".join(step.get("run", "") for step in steps).replace("\\\n", " ")
    typed = re.findall(r"^\s*broker (module \w+ .*?)(?: >|\|\||$)", scripts, re.MULTILINE)

    assert len(typed) == 2
    for line in typed:
        words = line.replace("$against", "--against .").replace('"$name"', "rise_rate").split()
        words = ["." if word in ("packets", "reports") else word for word in words]
        group, arguments = module_command, words[1:]
        context = click.Context(group.commands[arguments[0]], info_name=arguments[0])
        values = context.command.make_parser(context).parse_args(arguments[1:])[0]
        assert values["name"] == "rise_rate"
    packets = re.search(r"python -c '(.*?)'", scripts, re.DOTALL)
    compile(packets[1], "packets", "exec")
