"""The containers run commands, settings and files that exist."""

import re
import subprocess
import tomllib

import pytest
import words
import yaml

from broker.config import load_config
from broker.streaming.query import QUERIES

COMPOSE = yaml.safe_load((words.ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (words.ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
OURS = [n for n, service in COMPOSE["services"].items() if service["image"] == "nightjar-broker"]
SERVICES = pytest.mark.parametrize("name", sorted(OURS))


def normalised(name):
    return re.sub(r"[-_.]+", "-", name.split("[")[0]).lower()


@SERVICES
def test_a_container_runs_a_command_that_exists(name):
    service = COMPOSE["services"][name]

    assert words.problem_of(service["command"]) is None
    if "healthcheck" in service:
        first, *check = service["healthcheck"]["test"]
        assert first == "CMD"
        assert words.problem_of(check) is None
        assert check[0] in ("broker", "pgrep", "python")


@SERVICES
def test_the_settings_of_a_container_are_accepted_and_name_containers(name):
    environment = COMPOSE["services"][name]["environment"]

    config = load_config(environ={key: str(value) for key, value in environment.items()})

    hosts = {config.kafka.host, config.hbase.host} - {"127.0.0.1"}
    assert hosts <= set(COMPOSE["services"])
    assert hosts


@SERVICES
def test_a_container_keeps_its_data_in_a_volume(name):
    (volume,) = COMPOSE["services"][name]["volumes"]

    source, target = volume.split(":")
    assert source in COMPOSE["volumes"]
    assert f"BROKER_HOME={target} " in DOCKERFILE


def test_all_queries_run_and_wait_for_servers_that_have_a_health_check():
    assert set(QUERIES) | {"kafka", "hbase", "serve"} == set(OURS)
    for service in COMPOSE["services"].values():
        for needed in service.get("depends_on", ()):
            assert "healthcheck" in COMPOSE["services"][needed]


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_a_container_has_no_more_rights_than_it_needs_and_its_ports_are_the_loopback_s(name):
    service = COMPOSE["services"][name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert (words.ROOT / source).exists() or source in COMPOSE["volumes"], volume


def test_prometheus_and_grafana_find_what_they_read():
    deploy = words.ROOT / "deploy"
    scrape = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target == "serve:8800"
    assert COMPOSE["services"]["serve"]["ports"] == ["127.0.0.1:8800:8800"]
    source = yaml.safe_load((deploy / "grafana" / "datasource.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((deploy / "grafana" / "provisioning.yml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    targets = [v.split(":")[1] for v in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{folder}/nightjar.json" in targets


def test_what_the_image_copies_exists():
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert (words.ROOT / source).exists(), source


def test_the_lock_holds_every_package_that_is_asked_for_with_hashes():
    project = tomllib.loads((words.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(entry for extra in extras for entry in extra)]
    wanted = {normalised(re.split(r"[<>=;! ]", entry)[0]) for entry in asked}
    lock = (words.ROOT / "deploy" / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", lock.strip())

    pinned = {normalised(entry.split("==")[0]) for entry in entries}

    assert wanted - {"nightjar-broker"} <= pinned
    assert all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))


@pytest.mark.parametrize(
    "script", ["deploy/setup.sh", "deploy/lock.sh", "deploy/entrypoint.sh", ".ci/run"]
)
def test_a_script_is_well_formed(script):
    shell = "bash" if script in (".ci/run", "deploy/entrypoint.sh") else "sh"

    subprocess.run([shell, "-n", words.ROOT / script], check=True)


def test_no_file_names_a_host_to_fetch_from():
    for path in (
        "Makefile",
        "deploy/setup.sh",
        "deploy/lock.sh",
        "broker/local/jars.py",
        "broker/local/jars.toml",
        "deploy/Dockerfile",
        "deploy/requirements.lock",
    ):
        assert "://" not in (words.ROOT / path).read_text(), path
