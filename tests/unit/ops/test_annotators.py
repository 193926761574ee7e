"""Outside classifiers annotate public alerts with a token; filters and subscribers read it."""

import stat

import pytest
from fastapi.testclient import TestClient

from broker.api import make_app
from broker.api.annotations import add_annotations
from broker.avro import decode, unframe
from broker.errors import ConfigError
from broker.ops.annotate import annotations_topic
from broker.ops.annotators import Intake
from broker.ops.tokens import Tokens
from broker.store.alerts import create_tables
from broker.store.annotations import AnnotationStore
from broker.store.memory import MemoryTables
from broker.topics.memory import MemoryTopics
from broker.topics.publish import read_all, read_schemas, schemas_topic
from broker.types import Run

RUN = Run("annotated")
BIG = str(2**63 - 25)


class Alerts:
    def alert(self, survey, number):
        known = {BIG: True, "2": True, "hidden": False}
        return {"isPublic": known[number]} if survey == "ztf" and number in known else None


@pytest.fixture
def scene(tmp_path):
    tables, topics = MemoryTables(), MemoryTopics()
    create_tables(tables, RUN)
    intake = Intake(tables, topics, RUN)
    intake._alerts = Alerts()
    annotators = Tokens(tmp_path / "annotators", scopes=("annotate",))
    app = make_app(None, requests_per_s=1e6, burst=10**6)
    add_annotations(app, annotators, intake, prefix="/api/v1")
    token = annotators.add("their-network")

    with TestClient(app) as client:

        def post(*said, bearer=token):
            headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            body = {"annotations": list(said)}
            return client.post("/api/v1/annotations", json=body, headers=headers).status_code

        yield tables, topics, annotators, post, token


def said(number=BIG, **values):
    return {"survey": "ztf", "diaSourceId": number, "numbers": {"snIa": 0.9}, **values}


def test_what_is_said_is_kept_for_filters_and_published(scene):
    tables, topics, _, post, _ = scene

    assert post(said(texts={"kind": "SN Ia"}), said("2")) == 201
    assert post(said(numbers={"snIa": 0.2})) == 201

    answers = AnnotationStore(tables, RUN).answers([("ztf", BIG)], "their-network")
    assert answers["ztf", BIG].numbers == {"snIa": 0.2}
    schemas = read_schemas(topics, schemas_topic(RUN))
    records = []
    for message in read_all(topics, annotations_topic(RUN)):
        number, body = unframe(message.value)
        records.append(decode(schemas[number], body))
    assert sorted(r["numbers"]["snIa"] for r in records) == [0.2, 0.9, 0.9]
    assert {r["diaSourceId"] for r in records} == {BIG, "2"}


def test_without_the_right_token_nothing_is_kept(scene):
    tables, _, annotators, post, token = scene

    for wrong in ("", "their-network.x", "other.x", token + "x", "../../etc.x", token[:-1]):
        assert post(said(), bearer=wrong) == 401
    annotators.remove("their-network")
    assert post(said()) == 401
    assert AnnotationStore(tables, RUN).of_alert("ztf", BIG) == []


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (said("hidden"), 404),
        (said("3"), 404),
        (said(numbers={"not a name": 1.0}), 422),
        (said(texts={"snIa": "twice"}), 422),
        (said(more=1), 422),
    ],
)
def test_one_that_is_not_allowed_keeps_all_out(scene, wrong, status):
    tables, _, _, post, _ = scene

    assert post(said("2"), wrong) == status
    assert AnnotationStore(tables, RUN).of_alert("ztf", "2") == []


def test_tokens_are_kept_as_hashes_in_private_files(scene, tmp_path):
    _, _, annotators, _, token = scene
    (path,) = (tmp_path / "annotators").iterdir()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in path.read_text()
    with pytest.raises(ConfigError, match="already"):
        annotators.add("their-network")
