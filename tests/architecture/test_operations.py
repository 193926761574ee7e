"""Rules, dashboards and the runbook name metrics, sections and tests that exist."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from broker.ops.metrics import METRICS, PREFIX

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana" / "nightjar.json").read_text())
RUNBOOK = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]


def series():
    """Return every name that a scrape may have, of each metric."""
    for name, (kind, _) in METRICS.items():
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        yield from (f"{PREFIX}_{name}{suffix}" for suffix in suffixes)


def named(expression):
    return set(re.findall(rf"\b{PREFIX}_\w+", expression))


def anchor(title):
    """Return the address of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_uses_metrics_that_exist_and_leads_to_the_runbook(rule):
    assert named(rule["expr"]) <= set(series())
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    file, _, place = rule["annotations"]["runbook"].partition("#")
    assert file == "deploy/runbook.md"
    assert place in {anchor(section.split("\n")[0]) for section in SECTIONS}
    assert rule["alert"] in RUNBOOK


def test_the_rules_are_tested_with_series_that_a_scrape_has():
    file = DEPLOY / "prometheus" / "alerts-test.yml"
    well, wrong = yaml.safe_load(file.read_text())["tests"]
    names = {rule["alert"] for rule in RULES}
    assert {one["alertname"] for one in well["alert_rule_test"]} == names
    (fired,) = wrong["promql_expr_test"]
    assert {re.findall(r'"(\w+)"', one["labels"])[0] for one in fired["exp_samples"]} == names
    for one in (*well["input_series"], *wrong["input_series"]):
        assert named(one["series"]) <= set(series())
    used = {name for rule in RULES for name in named(rule["expr"])}
    for test in (well, wrong):
        given = {name for one in test["input_series"] for name in named(one["series"])}
        assert used <= given


def test_the_dashboard_uses_metrics_that_exist_and_shows_every_one():
    used = set()
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            found = named(target["expr"])
            assert found <= set(series()), panel["title"]
            used |= {re.sub("_(bucket|count|sum)$", "", name) for name in found}
    assert used == {f"{PREFIX}_{name}" for name in METRICS}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_runbook_has_ten_failures_each_with_a_test_that_exists():
    assert [section.split(".")[0] for section in SECTIONS] == [str(n) for n in range(1, 11)]
    for section in SECTIONS:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", section)
        assert tests, section.split("\n")[0]
        for file, name in tests:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, name


def test_prometheus_reads_the_rules_and_scrapes_where_metrics_are():
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]

    assert [(DEPLOY / "prometheus" / name).is_file() for name in settings["rule_files"]] == [True]
    assert job["metrics_path"] == "/metrics"
    assert f'up{{job="{job["job_name"]}"}}' in RULES[0]["expr"]


def test_grafana_finds_the_dashboard_and_prometheus():
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "provisioning.yml").read_text())["providers"]
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "datasource.yml").read_text())["datasources"]

    assert provider["type"] == "file"
    assert source["type"] == "prometheus"
    assert source["url"].startswith("http://prometheus:")
