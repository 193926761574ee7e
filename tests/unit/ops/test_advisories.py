"""Known weaknesses are asked of a service over HTTP; one that was not asked is not one without."""

import json
from http.server import BaseHTTPRequestHandler

import pytest
from click.testing import CliRunner
from loopback import served

from broker.cli.main import cli
from broker.errors import ServiceError
from broker.ops.advisories import known_weaknesses
from broker.ops.sbom import Component, components

JINJA = Component("pypi", "jinja2", "2.11.0", "BSD-3-Clause")
NETTY = Component("maven", "io.netty/netty-codec", "4.1.0", "Apache-2.0")
NUMPY = Component("pypi", "numpy", "2.4.0", "BSD-3-Clause")


@pytest.fixture
def osv():
    """Answer as OSV does: a result for each query, in order, by pages, of what `known` has."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            asked = json.loads(self.rfile.read(length))["queries"]
            server.asked.append(asked)
            body = server.broken or json.dumps({"results": [self.result(one) for one in asked]})
            self.send_response(server.status if self.path == "/v1/querybatch" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def result(self, query):
            pages = server.known.get(query["package"]["purl"], [])
            page = int(query.get("page_token", 0))
            if page >= len(pages):
                return {}
            more = {"next_page_token": str(page + 1)} if page + 1 < len(pages) else {}
            return {"vulns": [{"id": name, "modified": ""} for name in pages[page]], **more}

        def log_message(self, *_):
            pass

    with served(Handler) as server:
        server.asked, server.known, server.broken, server.status = [], {}, "", 200
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server


def test_those_with_advisories_are_returned_with_all_pages_of_them(osv):
    osv.known = {
        "pkg:pypi/jinja2@2.11.0": [["PYSEC-2"], ["PYSEC-1", "PYSEC-2"]],
        "pkg:maven/io.netty/netty-codec@4.1.0": [["GHSA-1"]],
    }

    found = known_weaknesses([JINJA, NUMPY, NETTY], osv.url)

    assert found == {JINJA: ["PYSEC-1", "PYSEC-2"], NETTY: ["GHSA-1"]}


def test_more_than_the_service_takes_at_once_are_asked_in_parts(osv):
    many = [Component("pypi", f"p{i}", "1") for i in range(2500)]
    osv.known = {many[2400].purl: [["PYSEC-1"]]}

    assert known_weaknesses(many, osv.url) == {many[2400]: ["PYSEC-1"]}
    assert [len(asked) for asked in osv.asked] == [1000, 1000, 500]


@pytest.mark.parametrize("broken", ["no JSON", '{"results": []}', "[]", "{}"])
def test_an_answer_that_does_not_tell_is_an_error(osv, broken):
    osv.broken = broken
    with pytest.raises(ServiceError, match="not known"):
        known_weaknesses([JINJA], osv.url)


def test_a_refusal_is_an_error(osv):
    osv.status = 503
    with pytest.raises(ServiceError, match="503"):
        known_weaknesses([JINJA], osv.url)


def test_the_command_names_weak_parts_until_they_are_accepted(osv):
    weak = next(one for one in components() if one.kind == "maven")
    osv.known = {weak.purl: [["GHSA-1", "GHSA-2"]]}
    words = ["sbom", "--json", "--advisories", "--osv", osv.url]

    def run(*more):
        return CliRunner().invoke(cli, [*words, *more])

    assert run().exit_code == 20
    assert f"{weak.name} {weak.version}: GHSA-1, GHSA-2" in run().stderr
    one_left = run("--accept", "GHSA-1")
    assert one_left.exit_code == 20
    assert f"{weak.version}: GHSA-2" in one_left.stderr
    assert run("--accept", "GHSA-1", "--accept", "GHSA-2").exit_code == 0
    osv.shutdown()
    osv.server_close()
    assert isinstance(run().exception, ServiceError)
