"""Every call of the server as people run it is described, and none fails on what it is sent."""

import contextlib
import copy
import itertools
import json

import pytest
import schemathesis
import whole_app as whole
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from broker.api.questions import EXAMPLE_OBJECT

V1 = "/api/v1"
ADDED = ("/annotations", "/transfers", "/unsubscribe", "/watchlists", "/periodogram")
"""Calls that the bare API does not have."""

UNASKED = ("/annotations", "/transfers", "/unsubscribe", "/periodogram")


@pytest.fixture(scope="module")
def served(broker, tmp_path_factory):
    # A copy: the whole application gives its sources watchlists, which others' have not.
    return whole.whole_app(copy.copy(broker.sources), tmp_path_factory.mktemp("whole"))


def operations_of(app):
    """Return the calls that no other test asks so."""
    schema = schemathesis.openapi.from_asgi(f"{V1}/openapi.json", app)
    found = [one.ok() for one in schema.get_all_operations()]
    return [one for one in found if any(part in one.path for part in UNASKED)]


def test_every_route_of_the_api_is_in_its_description(served):
    described = {
        (method.upper(), path)
        for path, operations in served.app.openapi()["paths"].items()
        for method in operations
    }
    answered = {one for one in whole.addresses(served.app) if one[1].startswith(V1)}

    assert answered - described == {("GET", f"{V1}/openapi.json")}
    for part in ADDED:
        assert any(part in path for _, path in described), part


def test_every_call_and_parameter_is_described(served):
    for path, operations in served.app.openapi()["paths"].items():
        for operation in operations.values():
            assert operation["description"].strip(), path
            for one in operation.get("parameters", ()):
                assert one.get("description") or one["schema"].get("description"), (path, one)


def test_the_periods_of_an_object_are_those_that_its_page_shows(served):
    client = TestClient(served.app)

    found = client.get(f"{V1}/objects/ztf/{EXAMPLE_OBJECT}/periodogram").json()

    assert found["peaks"]
    assert len(found["frequency"]) == len(found["power"])
    assert client.get(f"{V1}/objects/ztf/none/periodogram").status_code == 404


def answers_to(operation, mode, token):
    """Return path and status of answers to a call's questions, all of which are below 500."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=3,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case):
        answer = case.call(headers=headers)
        asked.add((operation.path, answer.status_code))
        assert answer.status_code < 500, case.as_curl_command()
        if answer.status_code >= 400 and "json" in answer.headers.get("content-type", ""):
            assert json.loads(answer.text)["error"], case.as_curl_command()

    with contextlib.suppress(Unsatisfiable):  # to a call without parameters nothing wrong is said
        ask()
    return asked


@pytest.mark.slow
def test_no_question_makes_the_whole_server_fail(served):
    """With the token of an annotator and of an owner, and with none."""
    tokens = [served.owners.add("ann"), served.annotators.add("classifier"), None]
    operations = operations_of(served.app)
    asked = set()

    for operation, mode, token in itertools.product(
        operations, schemathesis.GenerationMode, tokens
    ):
        asked |= answers_to(operation, mode, token)

    assert {path for path, _ in asked} == {operation.path for operation in operations}
    assert {401, 404, 422} <= {status for _, status in asked}
