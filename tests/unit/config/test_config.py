"""Settings: where they come from, and what is said of those that cannot work."""

import pytest

from broker.config import Config, load_config
from broker.errors import ConfigError


def test_a_variable_wins_over_the_file(tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text('run = "other"\n[kafka]\nport = 1234\nhost = "kafka.example"\n')

    config = load_config(file, {"BROKER_KAFKA__PORT": "4321", "PATH": "/bin"})

    assert (config.run, config.kafka.port) == ("other", 4321)
    assert config.kafka.bootstrap == "kafka.example:4321"


def test_without_file_and_variables_every_setting_has_its_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert load_config(None, {}) == Config()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("BROKER_KAFKA__PORT", "99999", "between 1 and 65535"),
        ("BROKER_KAFKA__PORT", "many", "must be of type int"),
        ("BROKER_KAFKA__PORT", "19090", "hbase.thrift_port and kafka.port are the same port"),
        ("BROKER_KAFKA__HOST", "", "kafka.host is empty"),
        ("BROKER_KAFKA", "here", r"\[kafka\] must be a section"),
        ("BROKER_KAFKA__PORT__NUMBER", "1", "not a setting"),
        ("BROKER_NOTHING__PORT", "1", "allowed here: home"),
        ("BROKER_HBASE__TIMEOUT_S", "0", "must be positive"),
        ("BROKER_STREAM__TRIGGER_S", "nan", "must be positive"),
        ("BROKER_STREAM__IDLE_S", "-1", "cannot be negative"),
        ("BROKER_SERVE__NICE", "-1", "from 0 to 19"),
        ("BROKER_SERVE__NICE", "20", "from 0 to 19"),
        ("BROKER_SCIENCE__ISOLATE", "perhaps", "must be of type bool"),
        ("BROKER_LOG__LEVEL", "LOUD", "DEBUG, INFO, WARNING"),
        ("BROKER_RUN", "My Run", "not allowed"),
    ],
)
def test_a_setting_that_cannot_work_is_named(tmp_path, monkeypatch, variable, value, words):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match=words):
        load_config(None, {variable: value})


@pytest.mark.parametrize("first", ["BROKER_KAFKA", "BROKER_KAFKA__PORT"])
def test_a_section_that_is_also_a_value_is_refused_in_any_order(tmp_path, monkeypatch, first):
    monkeypatch.chdir(tmp_path)
    both = {"BROKER_KAFKA": "here", "BROKER_KAFKA__PORT": "1234"}

    with pytest.raises(ConfigError, match="must be a section"):
        load_config(None, {first: both[first], **both})


def test_a_file_that_is_absent_a_folder_or_no_toml_is_named(tmp_path):
    (broken := tmp_path / "broken.toml").write_text("[kafka\n")

    with pytest.raises(ConfigError, match="there is no settings file"):
        load_config(tmp_path / "absent.toml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(broken, {})
