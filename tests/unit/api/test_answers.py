"""Cutouts, topics, schemas, state, limits, and the description of the API itself."""

import io
import itertools
import json
import re
import struct
import subprocess
import sys

import fastavro
import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from broker.api import make_app
from broker.api.cutouts import orientation, picture, stretched
from broker.api.questions import EXAMPLE_ALERT, EXAMPLE_SCHEMA, EXAMPLE_TOPIC
from broker.errors import ServiceError
from broker.imaging.cutout import decode_cutout, encode_cutout
from broker.imaging.wcs import Wcs
from broker.ops.topic_notes import Deprecation, announce
from broker.portal import add_portal

V1 = "/api/v1"
CUTOUTS = f"{V1}/alerts/ztf/{EXAMPLE_ALERT}/cutouts"


def test_a_cutout_is_the_same_as_fits_and_as_numbers(client, broker):
    alert = broker.store.alert("ztf", EXAMPLE_ALERT)
    data = broker.sources.packet(alert).canonical["cutoutScience"]

    fits = client.get(f"{CUTOUTS}/science?format=fits")
    numbers = client.get(f"{CUTOUTS}/science?format=array").json()

    truth = decode_cutout(data)
    assert fits.content[:6] == b"SIMPLE"
    np.testing.assert_array_equal(decode_cutout(fits.content), truth)
    np.testing.assert_array_equal(np.array(numbers["pixels"], np.float32), truth)


@pytest.mark.parametrize("stretch", ["linear", "asinh", "log", "zscale"])
def test_a_picture_has_the_cutouts_size_and_its_first_row_at_the_bottom(stretch):
    from PIL import Image

    pixels = np.random.default_rng(1).normal(0.0, 1.0, (21, 31)).astype(np.float32)
    pixels[:5] = 100.0
    pixels[20, 30] = np.nan

    image = np.asarray(Image.open(io.BytesIO(picture(pixels, stretch, "gray"))))

    assert image.shape[:2] == (21, 31)
    assert image[-1, 0, 0] == 255  # the bright rows are the first ones
    assert image[0, 30, 3] == 0  # a pixel without a value is clear
    assert image[0, 0, 3] == 255


def test_stretches_keep_the_order_of_pixels():
    pixels = np.sort(np.random.default_rng(2).lognormal(0.0, 2.0, 400)).astype(np.float32)

    for stretch in ("linear", "asinh", "log", "zscale"):
        scaled = stretched(pixels, stretch)
        assert scaled.min() == 0.0
        assert scaled.max() == 1.0
        assert (np.diff(scaled) >= 0.0).all()


def test_north_and_east_follow_the_cutouts_wcs():
    turned = np.radians(30.0)
    cd = 1e-4 * np.array([[-np.cos(turned), np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    wcs = Wcs(crval_ra=10.0, crval_dec=20.0, crpix_x=5.0, crpix_y=5.0, cd=cd)
    data = encode_cutout(np.zeros((11, 11), np.float32), wcs=wcs)

    found = orientation(data)

    x, y = wcs.sky_to_pixel(np.array([10.0]), np.array([20.001]))
    up = np.array([float(x[0]) - 5.0, float(y[0]) - 5.0])
    np.testing.assert_allclose(found["north"], up / np.hypot(*up), atol=1e-4)
    assert orientation(encode_cutout(np.zeros((11, 11), np.float32)))["north"] is None


def test_topics_tell_what_they_hold_and_which_part_of_all_they_got(client):
    rows = {row["topic"]: row for row in client.get(f"{V1}/topics").json()["data"]}

    assert rows[EXAMPLE_TOPIC]["slimMessages"] == 4
    assert rows[EXAMPLE_TOPIC]["passFraction"] == pytest.approx(0.2)
    assert rows["random-sample"]["passFraction"] == 0.0
    assert all(row["title"] for row in rows.values())


def test_a_topic_that_ends_says_so_as_data_and_on_its_pages(broker, tmp_path):
    end = Deprecation(EXAMPLE_TOPIC, "2027-01-31", "It is too wide.", "kilonova-candidate")
    announce(tmp_path, end)
    app = make_app(broker.sources, requests_per_s=1e6, burst=1_000_000)
    add_portal(app)
    client = TestClient(app)
    broker.sources.deprecations = tmp_path
    try:
        rows = {row["topic"]: row for row in client.get(f"{V1}/topics").json()["data"]}
        assert rows[EXAMPLE_TOPIC]["deprecated"] == end.sentence
        assert rows[EXAMPLE_TOPIC]["ends"] == "2027-01-31"
        assert rows[EXAMPLE_TOPIC]["instead"] == "kilonova-candidate"
        assert rows["kilonova-candidate"]["deprecated"] is None
        for page in ("/topics", f"/topics/{EXAMPLE_TOPIC}"):
            assert end.sentence in client.get(page).text
        (tmp_path / f"{EXAMPLE_TOPIC}.toml").write_text("ends = [")  # by hand, and wrong
        assert client.get(f"{V1}/topics").json()["data"][0]["deprecated"] is None
    finally:
        broker.sources.deprecations = None


def test_a_topics_alerts_come_newest_first_without_those_that_are_not_public(client, words):
    url = f"{V1}/topics/{EXAMPLE_TOPIC}/alerts?limit="

    whole = client.get(url + "10").json()

    assert [row["diaSourceId"] for row in whole["data"]] == [
        str(2**63 - 2),
        str(2**63 - 1),
        EXAMPLE_ALERT,
    ]
    assert whole["next"] is None


def test_pages_of_a_topic_stay_whole_when_new_messages_come(client, broker, words):
    url = f"{V1}/topics/{EXAMPLE_TOPIC}/alerts?limit=2"
    found, page = [], client.get(url).json()
    found += page["data"]
    name = broker.sources.run.public_topic(EXAMPLE_TOPIC, "slim")
    message = next(broker.topics.read(name, partition=0, first=0, end=1))
    broker.topics.send(name, [message], partition=0)

    while page["next"]:
        page = client.get(f"{url}&cursor={page['next']}").json()
        found += page["data"]

    assert sorted(row["diaSourceId"] for row in found) == sorted(
        [str(2**63 - 2), str(2**63 - 1), EXAMPLE_ALERT]
    )
    broker.topics.delete(name)
    words._publish(broker.topics, broker.store)


REGISTRY = "application/vnd.schemaregistry.v1+json"
ACCEPT = {"Accept": f"{REGISTRY}, application/vnd.schemaregistry+json, application/json"}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?subject=young-supernova-value",  # confluent-kafka for Python
        "?subject=young-supernova-value&format=",
        "?fetchMaxId=false&subject=young-supernova-value",  # Java
    ],
)
def test_a_deserializer_of_schema_registries_reads_a_packet(client, broker, query):
    """As such clients do it: a zero byte, the id in four, then Avro of the schema of that id."""
    name = broker.sources.run.public_topic(EXAMPLE_TOPIC, "slim")
    message = next(iter(broker.topics.read(name, partition=0, first=0, end=1)))
    magic, number = struct.unpack(">bI", message.value[:5])

    answer = client.get(f"/schemas/ids/{number}{query}", headers=ACCEPT)

    assert magic == 0
    assert answer.headers["content-type"] == REGISTRY
    assert answer.json().get("schemaType", "AVRO") == "AVRO"
    schema = fastavro.parse_schema(json.loads(answer.json()["schema"]))
    record = fastavro.schemaless_reader(io.BytesIO(message.value[5:]), schema)
    assert record["diaSourceId"].encode() == message.key


def test_an_unknown_schema_is_refused_in_the_words_of_a_registry(client):
    answer = client.get("/schemas/ids/7?subject=x-value", headers=ACCEPT)

    assert answer.status_code == 404
    assert answer.json()["error_code"] == 40403
    assert "7" in answer.json()["message"]


def test_schemas_are_given_as_a_registry_does(client, words):
    answer = client.get(f"/schemas/ids/{EXAMPLE_SCHEMA}")

    assert json.loads(answer.json()["schema"]) == words.SLIM
    assert client.get(f"{V1}/schemas/ids/{EXAMPLE_SCHEMA}").json() == answer.json()
    assert client.get("/schemas/ids/7").status_code == 404


def test_the_ledger_accounts_for_what_was_consumed(client):
    body = client.get(f"{V1}/ledger").json()

    by_topic = {row["topic"]: row for row in body["data"]}
    assert by_topic["run.served.alerts.ztf"]["consumed"] == 3
    assert by_topic["run.served.alerts.ztf"]["stored"] == 3
    assert by_topic["run.served.alerts.ztf"]["missing"] == 0


def test_nights_are_counted_by_survey(client):
    nights = {row["night"]: row for row in client.get(f"{V1}/nights").json()["data"]}

    assert nights["20230420"]["ztf"] == 3
    assert client.get(f"{V1}/nights/2023-04-20").json()["alerts"] == 3
    assert client.get(f"{V1}/nights/19990101").status_code == 404


def test_modules_and_catalogues_say_how_they_are(client):
    modules = client.get(f"{V1}/modules").json()["data"]
    catalogs = {row["catalog"]: row for row in client.get(f"{V1}/catalogs").json()["data"]}

    assert {row["status"] for row in modules} == {"ok"}
    assert catalogs["reference"]["version"] == "test-1"
    assert catalogs["gaia"]["status"] == "not installed"
    assert client.get(f"{V1}/modules?format=csv").status_code == 200


def test_a_store_that_does_not_answer_is_503_and_no_secret_is_told(client, broker, monkeypatch):
    def fail(*_, **__):
        raise ServiceError("HBase at secret-host:9090 does not answer")

    monkeypatch.setattr(broker.sources._store, "object", fail)
    answer = client.get(f"{V1}/objects/ztf/1")

    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "secret-host" not in answer.text


def test_too_many_requests_are_told_when_to_come_again(broker):
    hurried = TestClient(make_app(broker.sources, requests_per_s=0.1, burst=3))

    answers = [hurried.get(f"{V1}/modules") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10


def test_every_answer_forbids_what_pages_do_not_need(client):
    for url in (f"{V1}/modules", f"{V1}/nothing"):
        headers = client.get(url).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def examples(app):
    for path, operations in app.openapi()["paths"].items():
        operation = operations.get("get")
        if operation is None:
            continue
        url, query = path, {}
        for parameter in operation.get("parameters", ()):
            found = parameter["schema"].get("examples") or [None]
            if parameter["in"] == "path":
                url = re.sub(r"\{" + parameter["name"] + r"\}", str(found[0]), url)
            elif parameter["required"]:
                query[parameter["name"]] = found[0]
        yield url, query


@pytest.mark.slow
def test_every_example_of_the_description_runs(app, client):
    ran = []
    for url, query in examples(app):
        answer = client.get(url, params=query)
        assert answer.status_code == 200, (url, answer.text)
        ran.append(url)
    assert len(ran) >= 18
    body = app.openapi()["components"]["schemas"]["ManyObjects"]["properties"]
    many = {name: one["examples"][0] for name, one in body.items()}
    assert client.post(f"{V1}/objects", json=many).json()["total"] == 1


def test_every_call_and_parameter_is_described(app):
    for path, operations in app.openapi()["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), (path, parameter["name"])


@pytest.mark.slow
def test_no_question_makes_the_server_fail(app):
    """Questions made from the description, allowed and not, get an answer below 500."""
    schema = schemathesis.openapi.from_asgi(f"{V1}/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    asked = []

    for operation, mode in itertools.product(operations, schemathesis.GenerationMode):

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=5,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case):
            answer = case.call()
            asked.append(answer.status_code)
            assert answer.status_code < 500, case.as_curl_command()

        try:
            ask()
        except Unsatisfiable:  # to a call without parameters nothing wrong can be said
            assert mode is schemathesis.GenerationMode.NEGATIVE

    assert len(operations) >= 19
    assert {200, 400, 404, 422} <= set(asked)


def test_serving_never_loads_spark():
    program = (
        "import sys, broker.api, broker.portal, broker.cli.serve, broker.client\n"
        "from broker.science import find_contributions\n"
        "find_contributions()\n"
        "print(*sorted({'pyspark', 'py4j'} & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""
