"""What stops a start before it begins, each with what to do about it."""

import json
import socket
from contextlib import closing

import pytest
from click.testing import CliRunner

from broker.cli.main import cli
from broker.config import Config
from broker.errors import ConfigError, ServiceError
from broker.local import stack
from broker.local.service import Port, Service
from broker.local.stack import ServiceStatus, check_ports, check_room, down, status


def test_a_taken_port_is_named_with_its_setting():
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        number = other.getsockname()[1]

        with pytest.raises(
            ConfigError, match=rf"port {number} \(kafka\.port\) is taken.*KAFKA__PORT"
        ):
            check_ports([Port("kafka.port", "127.0.0.1", number)])


def test_a_free_port_is_no_error():
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        number = other.getsockname()[1]

    check_ports([Port("kafka.port", "127.0.0.1", number)])


def test_servers_of_another_machine_are_not_started_here():
    # 192.0.2.0/24 is kept for documentation: no machine has it.
    with pytest.raises(
        ConfigError, match=r"hbase\.host is 192\.0\.2\.1, which is not this machine"
    ):
        check_ports([Port("hbase.thrift_port", "192.0.2.1", 19090)])


def test_too_little_memory_or_disk_is_an_error_that_says_how_much(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"\d+ MB of memory are available; .*need 1000000000 MB"):
        check_room(tmp_path, need_memory_mb=10**9)

    monkeypatch.setattr(stack, "_MIN_FREE_DISK_MB", 10**12)
    with pytest.raises(ConfigError, match=r"MB of disk are free at .*set BROKER_HOME"):
        check_room(tmp_path, need_memory_mb=1)


def test_nothing_runs_in_a_new_home_and_nothing_is_made_there(tmp_path):
    config = Config(home=tmp_path / "home", cache=tmp_path)

    assert down(config) == []
    assert [(s.name, s.state, s.pid) for s in status(config)] == [
        ("kafka", "stopped", None),
        ("hbase", "stopped", None),
        ("thrift", "stopped", None),
    ]
    assert not (tmp_path / "home").exists()


def test_a_server_that_ended_by_itself_is_shown_as_dead(tmp_path):
    config = Config(home=tmp_path, cache=tmp_path)
    (tmp_path / "pid").mkdir()
    (tmp_path / "pid" / "kafka.json").write_text('{"pid": 1, "started": 1.0, "port": 7}')

    shown = status(config)[0]

    assert shown == ServiceStatus(
        "kafka", "dead", None, config.kafka.port, None, tmp_path / "logs" / "kafka.log"
    )


def test_a_gateway_that_does_not_get_ready_tells_what_hbase_says(tmp_path, monkeypatch):
    config = Config(home=tmp_path, cache=tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "thrift.log").write_text("WARN CONNECTIONLOSS\n")
    (tmp_path / "logs" / "hbase.log").write_text("ERROR hbase.version file is missing\n  at x.y\n")
    monkeypatch.setattr(stack, "START_TIMEOUT_S", 0.01)
    gateway = Service(
        name="thrift", ports=(Port("hbase.thrift_port", "127.0.0.1", 1),), heap_mb=1,
        folder=tmp_path, prepare=lambda: None, command=(), probe=lambda: None, behind="hbase",
    )  # fmt: skip

    with pytest.raises(ServiceError, match=r"thrift was not ready.*CONNECTIONLOSS; hbase stands "
                       r"behind it: its log is \S+hbase\.log and says: .*is missing$"):  # fmt: skip
        stack._wait(config, gateway, [])


def test_the_status_command_prints_json_and_checks(tmp_path):
    environment = {"BROKER_HOME": str(tmp_path / "home"), "BROKER_CACHE": str(tmp_path)}

    shown = CliRunner().invoke(cli, ["status", "--json"], env=environment)
    checked = CliRunner().invoke(cli, ["status", "--check", "--only", "hbase"], env=environment)

    rows = json.loads(shown.stdout)
    assert [row["name"] for row in rows] == ["kafka", "hbase", "thrift"]
    assert rows[0] == {
        "name": "kafka",
        "state": "stopped",
        "pid": None,
        "port": 19092,
        "memoryMb": None,
        "log": str(tmp_path / "home" / "logs" / "kafka.log"),
    }
    assert (shown.exit_code, checked.exit_code) == (0, 21)
