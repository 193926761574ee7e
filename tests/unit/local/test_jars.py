"""Pinned jars: verified once, fetched again when they are damaged, refused when they are wrong."""

import dataclasses
import hashlib
import threading

import pytest

from broker.errors import ServiceError
from broker.local import jars
from broker.local.jars import SETS, Jar, ensure_jars, pinned

CONTENT = {"one": b"first jar", "two": b"second jar", "three": b"third jar"}


def jar(name, which="kafka"):
    content = CONTENT[name]
    sha256 = hashlib.sha256(content).hexdigest()
    return Jar("org.example", name, "1.0", len(content), sha256, (which,))


@pytest.fixture
def source(monkeypatch):
    """A list of three small jars, and a stand-in for the network that counts what it served."""
    served = []
    content = dict(CONTENT)

    def fetch(folder, missing):
        for wanted in missing:
            served.append(wanted.artifact)
            if wanted.artifact in content:
                (folder / wanted.file_name).write_bytes(content[wanted.artifact])
        return "no route to the repository"

    monkeypatch.setattr(jars, "pinned", lambda: (jar("one"), jar("two"), jar("three", "spark")))
    monkeypatch.setattr(jars, "_fetch", fetch)
    fetch.served, fetch.content = served, content
    return fetch


def test_the_list_pins_every_jar_by_content_and_only_once():
    assert all(len(jar.sha256) == 64 and jar.bytes > 0 for jar in pinned())
    assert len({jar.file_name for jar in pinned()}) == len(pinned())
    assert {name for jar in pinned() for name in jar.sets} == set(SETS)


def test_sparks_jars_are_the_five_that_work_together():
    assert sorted(jar.file_name for jar in pinned() if "spark" in jar.sets) == [
        "commons-pool2-2.12.1.jar",
        "kafka-clients-4.3.1.jar",
        "spark-avro_2.13-4.1.1.jar",
        "spark-sql-kafka-0-10_2.13-4.1.3.jar",
        "spark-token-provider-kafka-0-10_2.13-4.0.0.jar",
    ]


def test_jars_are_fetched_once(source, tmp_path):
    ensure_jars(tmp_path)
    ensure_jars(tmp_path)

    assert sorted(source.served) == ["one", "three", "two"]


def test_only_the_set_that_is_asked_for_is_fetched(source, tmp_path):
    assert jars.spark_jars(tmp_path) == [tmp_path / "jars" / "three-1.0.jar"]

    assert source.served == ["three"]


def test_a_jar_that_was_changed_or_deleted_is_fetched_again(source, tmp_path):
    ensure_jars(tmp_path)
    (tmp_path / "jars" / "one-1.0.jar").write_bytes(b"damaged!!")
    (tmp_path / "jars" / "two-1.0.jar").unlink()

    ensure_jars(tmp_path)

    assert sorted(source.served[3:]) == ["one", "two"]
    assert (tmp_path / "jars" / "one-1.0.jar").read_bytes() == CONTENT["one"]


def test_jars_of_another_source_are_verified_and_not_fetched(source, tmp_path):
    (tmp_path / "jars").mkdir()
    for name in CONTENT:
        (tmp_path / "jars" / f"{name}-1.0.jar").write_bytes(CONTENT[name])

    ensure_jars(tmp_path)

    assert source.served == []


def test_a_jar_of_wrong_content_is_refused_and_does_not_stay(source, tmp_path):
    source.content["two"] = b"not what was pinned"

    with pytest.raises(ServiceError, match=r"could not fetch two-1\.0\.jar: .*check the network"):
        ensure_jars(tmp_path)

    assert not (tmp_path / "jars" / "two-1.0.jar").exists()
    assert source.served.count("one") == 1


def test_two_at_once_fetch_once(source, tmp_path):
    threads = [threading.Thread(target=ensure_jars, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(source.served) == ["one", "three", "two"]


def test_shares_hold_every_jar_once_and_weigh_about_the_same():
    shares = jars._shares(pinned(), 6)

    assert sorted(j.file_name for share in shares for j in share) == sorted(
        j.file_name for j in pinned()
    )
    weights = [sum(j.bytes for j in share) for share in shares]
    largest = max(j.bytes for j in pinned())
    assert max(weights) - min(weights) <= largest + len(pinned()) * 300_000


def test_an_unreachable_repository_is_named_in_the_error(tmp_path, monkeypatch):
    """Ivy itself runs here, against an address that nobody listens on."""
    monkeypatch.setattr(
        jars,
        "_SETTINGS",
        '<ivysettings><settings defaultResolver="r"/><resolvers><ibiblio name="r" '
        'm2compatible="true" root="http://127.0.0.1:9/"/></resolvers></ivysettings>',
    )
    monkeypatch.setattr(jars, "_user_settings", lambda: tmp_path / "ivysettings.xml")
    monkeypatch.setattr(jars, "_ROUNDS", 1)
    monkeypatch.setattr(
        jars, "pinned", lambda: (dataclasses.replace(jar("one"), artifact="absent"),)
    )

    with pytest.raises(
        ServiceError, match=r"could not fetch absent-1\.0\.jar: .*Connection refused"
    ):
        ensure_jars(tmp_path)

    assert not list((tmp_path / "jars").glob(".fetch-*"))
