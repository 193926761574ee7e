"""Kubernetes' manifests and systemd's units name commands, settings, ports and files that exist."""

import configparser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pyspark
import pytest
import words
import yaml

from broker.api.app import PREFIX
from broker.api.metrics import router as metrics_router
from broker.api.system import router as system_router
from broker.config import load_config
from broker.local.kafka import MAX_MESSAGE_BYTES
from broker.streaming.query import QUERIES

DEPLOY = words.ROOT / "deploy"
FILES = sorted(p for p in (DEPLOY / "kubernetes").glob("*.yaml") if p.stem != "kustomization")
OBJECTS = [o for path in FILES for o in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
DEPLOYMENTS = {o["metadata"]["name"]: o for o in OBJECTS if o["kind"] == "Deployment"}
SETTINGS = next(o["data"] for o in OBJECTS if o["kind"] == "ConfigMap")
UNITS = sorted((DEPLOY / "systemd").glob("nightjar*"))
SERVICES = [path for path in UNITS if path.suffix == ".service"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
EACH = pytest.mark.parametrize("name", sorted(DEPLOYMENTS))


def of_kind(kind):
    return [o for o in OBJECTS if o["kind"] == kind]


def container_of(name):
    (container,) = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
    return container


def environment_of(container):
    found = dict(SETTINGS) if container.get("envFrom") else {}
    return found | {one["name"]: one["value"] for one in container.get("env", ())}


def test_each_part_of_the_broker_has_a_deployment():
    assert set(DEPLOYMENTS) == {"hbase", "serve", *QUERIES}
    commands = {container_of(query)["args"][-1] for query in QUERIES}
    assert commands == set(QUERIES)


@EACH
def test_a_pod_runs_a_command_that_exists_with_settings_that_are_accepted(name):
    container = container_of(name)

    assert words.problem_of(container["args"]) is None
    config = load_config(environ=environment_of(container))
    services = {o["metadata"]["name"] for o in of_kind("Service")}
    kafka = {f"{o['metadata']['name']}-kafka-bootstrap" for o in of_kind("Kafka")}
    assert config.hbase.host in services
    assert name == "hbase" or config.kafka.host in kafka


@EACH
def test_a_pod_is_watched_limited_and_nobody_of_importance(name):
    container, pod = container_of(name), DEPLOYMENTS[name]["spec"]["template"]["spec"]

    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        command = container[probe].get("exec", {}).get("command")
        assert command is None or words.problem_of(command) is None
        assert command is None or command[0] in ("broker", "pgrep")
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert (
        container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    )
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = int(re.search(r"useradd .*--uid (\d+) broker", DOCKERFILE)[1])
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == user
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", ["hbase", *QUERIES])
def test_what_must_not_be_there_twice_is_stopped_before_it_starts_again(name):
    spec = DEPLOYMENTS[name]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


@EACH
def test_claims_selectors_and_ports_meet(name):
    template = DEPLOYMENTS[name]["spec"]["template"]
    container, pod = container_of(name), template["spec"]
    claims = {o["metadata"]["name"] for o in of_kind("PersistentVolumeClaim")}

    assert DEPLOYMENTS[name]["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    volumes = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]}
    assert set(volumes.values()) <= claims
    for mount in container["volumeMounts"]:
        assert mount["name"] in volumes
        assert f"BROKER_HOME={mount['mountPath']} " in DOCKERFILE
    named = {port["name"] for port in container.get("ports", ())}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        for kind in ("tcpSocket", "httpGet"):
            assert kind not in container[probe] or container[probe][kind]["port"] in named


def test_services_lead_to_ports_that_are_listened_on():
    config = load_config(environ={})
    ports = {o["metadata"]["name"]: o["spec"]["ports"][0]["port"] for o in of_kind("Service")}
    assert ports == {"hbase": config.hbase.thrift_port, "serve": config.serve.port}
    for service in of_kind("Service"):
        assert service["spec"]["selector"] == {"app": service["metadata"]["name"]}


def test_the_api_has_the_pages_that_are_asked():
    served = {f"{PREFIX}{r.path}" for r in system_router.routes}
    assert container_of("serve")["readinessProbe"]["httpGet"]["path"] in served
    notes = DEPLOYMENTS["serve"]["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/path"] in {route.path for route in metrics_router.routes}
    compose = (words.ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"127\.0\.0\.1:8800(/[\w/]+)", compose)) <= served


def test_kafka_keeps_three_copies_and_takes_our_largest_messages():
    (kafka,) = of_kind("Kafka")
    config = kafka["spec"]["kafka"]["config"]
    (pool,) = of_kind("KafkaNodePool")
    assert config["message.max.bytes"] == config["replica.fetch.max.bytes"] == MAX_MESSAGE_BYTES
    assert config["default.replication.factor"] == pool["spec"]["replicas"] == 3
    assert config["min.insync.replicas"] == 2
    assert config["auto.create.topics.enable"] is False
    assert config["log.retention.ms"] == -1
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    assert str(listener["port"]) == SETTINGS["BROKER_KAFKA__PORT"]


def test_the_kustomization_has_all_files_but_the_one_for_more_nodes():
    text = (DEPLOY / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8")
    listed = yaml.safe_load(text)["resources"]
    assert {*listed, "spark.yaml"} == {path.name for path in FILES}
    assert {o["metadata"].get("namespace", "nightjar") for o in OBJECTS} == {"nightjar"}


def test_spark_s_application_is_the_same_command_on_the_locked_spark():
    (spark,) = of_kind("SparkApplication")
    spec = spark["spec"]
    project = tomllib.loads((words.ROOT / "pyproject.toml").read_text())["project"]

    assert f"pyspark=={spec['sparkVersion']}" in project["optional-dependencies"]["stream"]
    assert words.problem_of(["broker", *spec["arguments"]]) is None
    inner = spec["mainApplicationFile"].removeprefix("local:///opt/broker/")
    assert (words.ROOT / inner).is_file()
    assert "WORKDIR /opt/broker\n" in DOCKERFILE
    load_config(environ=environment_of(spec["driver"]))
    accounts = {o["metadata"]["name"] for o in of_kind("ServiceAccount")}
    assert spec["driver"]["serviceAccount"] in accounts


def test_a_container_hands_on_its_command_and_knows_the_parts_of_spark(tmp_path):
    tini = tmp_path / "tini"
    tini.write_text('#!/bin/sh\nshift 2\nprintf "%s\\n" "$@"\n')
    tini.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SPARK_DRIVER_BIND_ADDRESS": "10.0.0.1",
        "SPARK_JAVA_OPT_1": "-Dsecond=2",
        "SPARK_JAVA_OPT_0": "-Dfirst=1 and more",
        "SPARK_EXECUTOR_MEMORY": "2g",
        "SPARK_DRIVER_URL": "spark://driver",
        "SPARK_EXECUTOR_ID": "7",
        "SPARK_EXECUTOR_CORES": "4",
        "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.2",
        "SPARK_EXECUTOR_POD_NAME": "pod",
    }

    def run(*arguments):
        done = subprocess.run(
            [DEPLOY / "entrypoint.sh", *arguments],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    assert run("broker", "stream", "all") == ["broker", "stream", "all"]
    driver = run("driver", "--class", "x")
    assert driver[0] == str(Path(pyspark.__path__[0]) / "bin" / "spark-submit")
    assert driver[-4:] == ["--deploy-mode", "client", "--class", "x"]
    executor = run("executor")
    assert executor[:5] == ["java", "-Dfirst=1 and more", "-Dsecond=2", "-Xms2g", "-Xmx2g"]
    assert executor[-2:] == ["--podName", "pod"]
    (backend,) = (word for word in executor if word.endswith("KubernetesExecutorBackend"))
    (jar,) = (Path(pyspark.__path__[0]) / "jars").glob("spark-kubernetes_*.jar")
    assert f"{backend.replace('.', '/')}.class" in zipfile.ZipFile(jar).namelist()


def unit(path):
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str
    parsed.read_string(path.read_text(encoding="utf-8"))
    return parsed


@pytest.mark.parametrize("path", SERVICES, ids=lambda p: p.stem)
def test_a_unit_runs_a_command_that_exists_as_nobody_of_importance(path):
    service = unit(path)["Service"]

    for key in ("ExecStart", "ExecStartPost"):
        if key in service:
            program, *arguments = service[key].split()
            assert program == "/opt/nightjar/.venv/bin/broker"
            assert words.problem_of(["broker", *arguments]) is None
    assert service["User"] == "nightjar"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    if service["Type"] == "exec":
        assert service["Restart"] == "always"
        assert service["MemoryMax"]
        # The command alone is asked to end, so that a query finishes its batch with its Java.
        assert service["KillMode"] == "mixed"
        assert int(service["TimeoutStopSec"]) > 120


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.name)
def test_a_unit_names_units_that_exist(path):
    names = set(re.findall(r"nightjar-?\w*\.(?:service|target|timer)", path.read_text()))
    assert names <= {p.name for p in UNITS}


def test_the_target_starts_every_unit_that_stays_and_all_queries_are_among_them():
    wanted = set(unit(DEPLOY / "systemd" / "nightjar.target")["Unit"]["Wants"].split())
    assert wanted == {p.name for p in SERVICES if p.stem != "nightjar-backup"}
    assert {f"nightjar-{query}.service" for query in QUERIES} <= wanted


def test_the_settings_of_the_units_are_accepted():
    lines = (DEPLOY / "systemd" / "broker.env").read_text().splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    config = load_config(environ=pairs)
    assert str(config.home) == "/var/lib/nightjar"
