"""Whatever is typed into whatever address: no page runs it, no path, row or query is reached.

Every address is asked with nasty words in every place: each part of the path, each parameter that
it declares, bodies, forms and headers.
"""

import json
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
import whole_app as whole
from fastapi.testclient import TestClient

from broker.api.app import PREFIX

pytestmark = pytest.mark.slow

MARK = "zq7x"
NASTY = {
    "script": f"<script>{MARK}()</script>",
    "attribute": f"\"'><img src=x onerror={MARK}()>",
    "template": f"{{{{ {MARK}.__class__ }}}}{{% include '/etc/passwd' %}}",
    "query": f"x' OR '1'='1'; DROP TABLE alert;-- {MARK}",
    "up": f"../../../../../../etc/passwd{MARK}",
    "nul": f"{MARK}\0.fits",
    "lines": f"{MARK}\r\nSet-Cookie: {MARK}=1\r\n\r\n<b>{MARK}</b>",
    "row key": f"{MARK}|ztf|\xff\ufffe\U0001f52d",
    "huge": MARK + "A" * 20_000,
    "not a number": "nan",
}

SECRET = b"root:x:0:0"


@pytest.fixture(scope="module")
def parts(broker, tmp_path_factory):
    import copy

    made = whole.whole_app(copy.copy(broker.sources), tmp_path_factory.mktemp("outside"))
    made.token = made.owners.add("ann")
    with TestClient(made.app, raise_server_exceptions=True) as made.client:
        yield made


class Elements(HTMLParser):
    """Finds in a page, read as a browser does, what would run or lead elsewhere."""

    def __init__(self):
        super().__init__()
        self.active = []

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        runs = tag == "script" and not (
            (said.get("src") or "").startswith("/static/") or said.get("type") == "application/json"
        )
        odd = [
            name
            for name, value in attrs
            if name.startswith("on")
            or MARK in name
            or (name in ("href", "src", "action") and not LINK.match(value or "/"))
        ]
        if runs or odd or MARK in tag or tag in ("iframe", "object", "embed", "base"):
            self.active.append(self.get_starttag_text()[:200])


LINK = re.compile(r"(/(?!/)|#|\?|https?://[a-z]|mailto:|data:image/)")


def rows_of(broker):
    tables = broker.tables
    return {name: sum(1 for _ in tables.table(name).scan()) for name in tables.names()}


def check(answer, nasty):
    assert answer.status_code < 500, (answer.status_code, answer.text[:200])
    assert MARK not in "".join(f"{k}{v}" for k, v in answer.headers.items() if k != "location")
    assert "\n" not in answer.headers.get("location", "")
    location = answer.headers.get("location", "/")
    assert location.startswith(("/", "http://testserver/tap/"))
    assert not location.startswith("//")
    assert SECRET not in answer.content
    if answer.headers.get("content-type", "").startswith("text/html"):
        page = Elements()
        page.feed(answer.text)
        assert not page.active, nasty
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    elif answer.content:
        assert answer.headers.get("content-type", "") != ""
        assert answer.headers["x-content-type-options"] == "nosniff"


def filled(template, word):
    return re.sub(r"\{[^}]+\}", quote(word, safe=""), template)


PLAIN = {"survey": "ztf", "topic": "young-supernova", "kind": "science", "name": "x", "night":
         "20230420"}  # fmt: skip


def each_part(template, word):
    """Yield addresses with a word in one part of the path at a time, and in all."""
    names = re.findall(r"\{([^}:]+)[^}]*\}", template)
    for one in names:
        yield re.sub(
            r"\{([^}:]+)[^}]*\}",
            lambda m, one=one: quote(word if m[1] == one else PLAIN.get(m[1], "1"), safe=""),
            template,
        )
    if len(names) != 1:
        yield filled(template, word)


def parameters(app):
    """Return the query parameters that are declared, by address."""
    found = {}
    for path, methods in app.openapi()["paths"].items():
        for method, said in methods.items():
            names = [p["name"] for p in said.get("parameters", ()) if p["in"] == "query"]
            found[method.upper(), path] = names
    return found


PAGE_PARAMETERS = ("q", "cursor", "alert", "topic", "class", "survey", "band", "moc", "box", "form")


@pytest.mark.parametrize("kind", NASTY)
def test_nasty_words_in_paths_do_nothing(parts, kind):
    word = NASTY[kind][:8000]
    for method, template in whole.addresses(parts.app):
        if "{" not in template:
            continue
        for url in each_part(template, word):
            body = {"content": b"id,ra,dec\na,1,2\n"} if method == "PUT" else {}
            answer = parts.client.request(method, url, follow_redirects=False, **body)
            check(answer, (method, url[:200]))


@pytest.mark.parametrize("kind", NASTY)
def test_nasty_words_in_parameters_do_nothing(parts, kind):
    word = NASTY[kind][:8000]
    declared = parameters(parts.app)
    for method, template in whole.addresses(parts.app):
        if method != "GET":
            continue
        url = re.sub(r"\{([^}:]+)[^}]*\}", lambda m: PLAIN.get(m[1], "1"), template)
        names = declared.get((method, template), PAGE_PARAMETERS)
        for name in (*names, word[:100]):
            answer = parts.client.get(url, params={name: word}, follow_redirects=False)
            check(answer, (url, name))


@pytest.mark.parametrize("kind", NASTY)
def test_nasty_words_in_bodies_and_headers_do_nothing(parts, broker, kind):
    word = NASTY[kind]
    before = rows_of(broker)
    bearer = {"Authorization": b"Bearer " + word.encode("utf-8", "surrogatepass")[:400]}
    if kind == "lines" or kind == "nul":  # no client can send these in a header
        bearer = {"Authorization": f"Bearer {MARK}"}
    client = parts.client
    bodies = [word, [word], {word: word}, {"survey": word, "ids": [word]},
              {"first": word, "last": word, "where": word, "topics": [word], "columns": [word]},
              {"annotations": [{"survey": word, "diaSourceId": word, "texts": {}}]}]  # fmt: skip
    for method, template in whole.addresses(parts.app):
        if method not in ("POST", "PUT", "DELETE"):
            continue
        url = filled(template, "x")
        for body in bodies:
            check(client.request(method, url, content=json.dumps(body), headers=bearer), url)
        check(client.request(method, url, content=word.encode("utf-8", "replace")), url)
        form = dict.fromkeys(("token", "do", "name", "entries", "doc", "where", "radius"), word)
        check(client.request(method, url, data=form), url)
        session = parts.app.state.sessions.begin(partial(parts.owners.find, parts.token))
        own = {"Cookie": f"session={session}"}
        for wish in ("add", "remove", word):
            check(client.request(method, url, data={**form, "do": wish}, headers=own), url)
    check(client.get("/", headers={"Accept": word.encode("ascii", "replace")[:4000].replace(
        b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")}), "Accept")  # fmt: skip
    assert rows_of(broker) == before
    assert not Path(f"/tmp/{MARK}").exists()


@pytest.mark.parametrize("kind", NASTY)
def test_a_lists_words_are_shown_as_words(parts, kind):
    """What an owner may write freely, its description, comes back on a page as text."""
    word = NASTY[kind].replace("\0", "")[:1500]
    headers = {"Authorization": f"Bearer {parts.token}"}
    url = f"{PREFIX}/watchlists/words"
    params = {"doc": word}
    made = parts.client.put(url, params=params, headers=headers, content=b"id,ra,dec\na,10,20\n")
    check(made, kind)
    for page in ("/watchlists", "/watchlists/words"):
        check(parts.client.get(page), page)
    parts.client.delete(url, headers=headers)
