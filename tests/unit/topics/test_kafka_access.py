"""The file of a Kafka user: whole, private, and never shown."""

import pickle

import pytest

from broker.config import Config, KafkaConfig, load_config
from broker.errors import ConfigError
from broker.local.secure import check_open, new_password
from broker.topics.kafka_access import (
    KafkaUser,
    connection,
    java_options,
    read_user,
    write_private,
)
from broker.types import Bootstrap

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
USER = KafkaUser("ann", "a-Secret_1", CERTIFICATE)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ann.properties"
    write_private(path, USER.as_properties())
    return path


def test_a_users_file_says_all_that_a_user_needs(file):
    assert read_user(file) == USER
    assert not file.stat().st_mode & 0o077


def test_passwords_are_such_as_a_file_can_hold(file):
    for _ in range(200):
        user = KafkaUser("ann", new_password(), CERTIFICATE)
        write_private(file, user.as_properties())
        assert read_user(file) == user


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620])
def test_a_file_that_others_can_read_is_refused(file, mode):
    file.chmod(mode)
    for attempt in (read_user, lambda f: connection(Bootstrap("h:1", str(f))),
                    lambda f: java_options(Bootstrap("h:1", str(f)))):  # fmt: skip
        with pytest.raises(ConfigError, match="chmod 600") as caught:
            attempt(file)
        assert USER.password not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "a=b", "\xff", USER.as_properties()[:-80], USER.as_properties().replace("Scram", "Plain")],
)
def test_what_is_no_users_file_is_refused_without_its_words(file, text):
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="no file of a user") as caught:
        read_user(file)
    assert USER.password not in str(caught.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="user_file"):
        connection(Bootstrap("h:1", "/nowhere/x"))


def test_a_user_does_not_show_its_password():
    assert USER.password not in repr(USER)
    assert USER.password not in str(USER)


def test_what_spark_is_told_has_the_files_name_and_nothing_of_what_is_in_it(file):
    options = java_options(Bootstrap("h:1", str(file)))
    said = " ".join(options.values())
    assert USER.password not in said
    assert "CERTIFICATE" not in said
    assert options["kafka.sasl.jaas.config"] == f"${{user:{file}:sasl.jaas.config}}"
    assert java_options("h:1") == {"kafka.bootstrap.servers": "h:1"}


def test_an_address_keeps_its_user_on_the_way_to_a_worker():
    sent = pickle.loads(pickle.dumps(Bootstrap("h:1", "/a/b")))
    assert (sent, sent.user_file) == ("h:1", "/a/b")


def test_a_secure_kafka_is_asked_as_its_operator_unless_a_user_is_named(tmp_path):
    own = Config(home=tmp_path, kafka=KafkaConfig(secure=True))
    assert own.kafka.bootstrap.user_file == str(tmp_path / "kafka-users" / "broker.properties")
    named = Config(home=tmp_path, kafka=KafkaConfig(secure=True, user_file="/x"))
    assert named.kafka.bootstrap.user_file == "/x"
    assert load_config(environ={}).kafka.bootstrap.user_file == ""


def test_settings_hold_no_password(file):
    config = Config(kafka=KafkaConfig(user_file=str(file)))
    assert USER.password not in repr(config)
    assert USER.password not in repr(config.kafka.bootstrap)


def test_a_kafka_with_users_is_not_opened_to_all_by_a_forgotten_setting(tmp_path):
    config = Config(home=tmp_path)
    check_open(config)
    write_private(config.kafka_users / "broker.properties", USER.as_properties())
    with pytest.raises(ConfigError, match=r"kafka\.secure"):
        check_open(config)
