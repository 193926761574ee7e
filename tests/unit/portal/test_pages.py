"""Pages show what the API says, escape everything, and send people where they meant to go."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from broker.api.questions import EXAMPLE_ALERT, EXAMPLE_OBJECT, EXAMPLE_SCHEMA, EXAMPLE_TOPIC
from broker.api.search import search
from broker.catalog.registry import read_definitions
from broker.portal.app import as_data
from broker.portal.classes import class_history
from broker.portal.night_parts import latency_of_batches
from broker.portal.schema_pages import fields_of
from broker.portal.sky_view import sky_view
from broker.portal.words import matches, number
from broker.store.search import Wanted

PAGES = (
    "/",
    "/topics",
    f"/topics/{EXAMPLE_TOPIC}",
    "/nights",
    "/nights/20230420",
    "/modules",
    "/health",
    "/quick-start",
    "/docs",
    f"/objects/ztf/{EXAMPLE_OBJECT}",
    f"/alerts/ztf/{EXAMPLE_ALERT}/packet",
    "/search?q=0.0+0.0+10",
    "/find",
    "/find?class=hosted",
    f"/find?topic={EXAMPLE_TOPIC}&minSnr=1",
    "/statistics",
    f"/statistics?topic={EXAMPLE_TOPIC}",
    "/schemas",
    f"/schemas/{EXAMPLE_SCHEMA}",
)

VOID = {"meta", "link", "img", "input", "br"}


class Elements(HTMLParser):
    """Collects elements, and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.problems = [], [], []
        self.feed(text)
        self.problems += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"{tag} is closed out of order")

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.mark.parametrize("url", PAGES)
def test_a_page_is_whole_and_asks_nothing_of_another_machine(client, url):
    answer = client.get(url)

    assert answer.status_code == 200
    page = Elements(answer.text)
    assert not page.problems
    loaded = [a.get("src") for tag in ("script", "img") for a in page.all(tag) if "src" in a]
    loaded += [a["href"] for a in page.all("link")]
    assert all(place.startswith("/") and not place.startswith("//") for place in loaded)
    # Scripts and styles of the page itself would be stopped by its own policy.
    assert not [a for tag, a in page.found if "style" in a or any(n.startswith("on") for n in a)]
    assert not page.all("style")
    assert all("src" in a or a.get("type") == "application/json" for a in page.all("script"))
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("url", PAGES)
def test_a_page_names_the_call_that_gives_it_as_data_and_the_call_works(client, url):
    page = client.get(url).text
    named = re.search(r'<p class="api">This page as data: <a href="([^"]+)">', page)

    if url == "/quick-start":
        assert named is None
        return
    assert client.get(named[1].replace("&amp;", "&")).status_code == 200


@pytest.mark.parametrize("url", PAGES)
def test_a_page_can_be_used_by_keyboard_and_read_aloud(client, url):
    page = Elements(client.get(url).text)

    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == 1
    labels = {a["for"] for a in page.all("label") if "for" in a}
    for tag, attributes in page.found:
        if tag == "input":
            assert attributes["id"] in labels
        if tag == "img":
            assert "alt" in attributes
        if tag == "a":
            assert attributes["href"]
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_links_within_the_pages_lead_somewhere(client):
    seen = set()
    for url in PAGES:
        for attributes in Elements(client.get(url).text).all("a"):
            place = attributes["href"]
            if place.startswith("/") and place not in seen:
                seen.add(place)
                assert client.get(place).status_code == 200, (url, place)
    assert len(seen) > 25


def test_text_of_an_enemy_stays_text(client, words):
    for url in (
        f"/objects/sim/{quote(words.HOSTILE, safe='')}",
        "/search?q=90+45+10",
        f"/search?q={quote(words.HOSTILE)}",
        f"/search?q=topic:{quote(words.HOSTILE)}",
        f"/search?q=class:{quote(words.HOSTILE)}",
        f"/find?class={quote(words.HOSTILE)}",
        f"/find?box={quote(words.HOSTILE)}",
        f"/statistics?class={quote(words.HOSTILE)}",
        f"/schemas/{quote(words.HOSTILE, safe='')}",
        f"/objects/sim/{quote(words.HOSTILE, safe='')}?alert={quote(words.HOSTILE)}",
        f"/topics/{quote(words.HOSTILE, safe='')}",
        f"/objects/sim/{words.BIG}?alert={quote(words.HOSTILE)}",
    ):
        answer = client.get(url)
        assert "<script>alert" not in answer.text
        assert "&gt;&lt;script&gt;" in answer.text or "\\u003cscript" in answer.text, url


def test_data_for_a_script_cannot_end_its_element():
    text = as_data({"a": "</script><b>&", "b": float("nan"), "c": 2**63})

    assert "<" not in text
    assert "&" not in text
    assert json.loads(text) == {"a": "</script><b>&", "b": None, "c": 2**63}


def test_the_id_of_a_page_is_exact(client, words):
    page = client.get(f"/objects/sim/{words.BIG}").text

    data = json.loads(re.search(r'id="light-curve-data">(.*?)</script>', page)[1])
    assert words.BIG in page
    assert [epoch["diaSourceId"] for epoch in data["epochs"]] == [str(2**63 - 1), str(2**63 - 2)]


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (EXAMPLE_OBJECT, f"/objects/ztf/{EXAMPLE_OBJECT}"),
        (f" ztf:{EXAMPLE_OBJECT} ", f"/objects/ztf/{EXAMPLE_OBJECT}"),
        (EXAMPLE_ALERT, f"/objects/ztf/{EXAMPLE_OBJECT}?alert={EXAMPLE_ALERT}"),
        ("topic:young-supernova", "/topics/young-supernova"),
        ("night:2023-04-20", "/nights/20230420"),
        ("class:hosted", "/find?class=hosted"),
    ],
)
def test_the_search_box_goes_to_what_was_meant(client, asked, place):
    answer = client.get("/search", params={"q": asked}, follow_redirects=False)

    assert answer.status_code == 303
    assert answer.headers["location"] == place
    assert client.get(place).status_code == 200


def test_what_is_not_public_is_on_no_page(client):
    assert client.get("/objects/sim/secret").status_code == 404
    assert client.get("/search?q=secret").status_code == 404
    for url in PAGES:
        assert ">secret<" not in client.get(url).text


def test_an_error_on_a_page_is_a_page_with_words(client):
    for url, status in (("/nothing", 404), ("/nights/99", 400), ("/search?q=planet:9", 400)):
        answer = client.get(url)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert not Elements(answer.text).problems


def test_an_object_whose_packet_is_gone_is_shown_without_cutouts(client, words):
    page = client.get(f"/objects/sim/{words.BIG}").text

    assert "There is no packet any more" in page


def test_a_match_is_said_in_a_sentence():
    definitions = list(read_definitions().values())
    alert = {
        "referenceMatch": 1,
        "referenceId": "7",
        "referenceSeparation": 0.418,
        "referenceVersion": "1",
        "referenceClass": "galaxy",
        "referenceMag": 19.25,
        "referenceSizeArcsec": None,
        "referenceRedshift": None,
        "gaiaMatch": -1,
    }

    found = {row["catalog"]: row["sentence"] for row in matches(alert, definitions)}

    assert found["reference"] == "A galaxy of reference lies 0.42″ away: mag 19.25 mag."
    assert found["gaia"] == "gaia was not searched: it is not installed."


def test_null_is_a_dash_and_never_a_number():
    assert [number(v) for v in (None, float("nan"), 0.0, 12345.678, True, 3)] == [
        "–",
        "–",
        "0",
        "1.235e+04",
        "yes",
        "3",
    ]


def test_a_form_leaves_out_what_was_not_filled_in(client):
    asked = {"class": "", "topic": EXAMPLE_TOPIC, "minSnr": " 1 ", "maxMag": "", "other": "x"}

    answer = client.get("/find/go", params=asked, follow_redirects=False)

    assert answer.status_code == 303
    assert answer.headers["location"] == f"/find?topic={EXAMPLE_TOPIC}&minSnr=1"
    empty = client.get("/find/go", follow_redirects=False)
    assert empty.headers["location"] == "/find"


def test_a_search_shows_what_the_call_it_names_gives(client):
    page = client.get(f"/find?topic={EXAMPLE_TOPIC}").text

    call = re.search(r'This page as data: <a href="([^"]+)">', page)[1].replace("&amp;", "&")
    data = client.get(call).json()
    assert data["total"] > 1
    assert f">{data['total']} objects<" in page
    for row in data["data"]:
        assert f">{row['objectId']}</a>" in page
    csv = client.get(re.search(r'href="([^"]+format=csv[^"]*)"', page)[1].replace("&amp;", "&"))
    assert len(csv.text.strip().splitlines()) == data["total"] + 1


def test_rows_of_a_search_have_a_small_light_curve(client):
    page = Elements(client.get(f"/find?topic={EXAMPLE_TOPIC}").text)

    drawn = [a for a in page.all("svg") if a.get("class") == "small-curve"]
    assert len(drawn) == len([a for a in page.all("a") if a["href"].startswith("/objects/")])
    assert all("epoch" in a["aria-label"] for a in drawn)


def test_counts_of_the_statistics_are_those_of_the_search(client):
    page = client.get(f"/statistics?topic={EXAMPLE_TOPIC}").text
    total = client.get(f"/api/v1/alerts?topic={EXAMPLE_TOPIC}").json()["total"]

    assert f'<p class="lead">{total} alerts.</p>' in page
    cells = re.findall(r'class="cell s-\d" d="[^"]+"><title>(\d+)</title>', page)
    assert sum(map(int, cells)) == total


def test_the_schema_browser_shows_every_field_with_its_type(client, words):
    page = client.get(f"/schemas/{EXAMPLE_SCHEMA}").text

    for field in words.SLIM["fields"]:
        assert f"<code>{field['name']}</code>" in page
    assert client.get("/schemas/12x").status_code == 404


def test_fields_of_inner_records_stand_behind_the_field_that_holds_them():
    schema = {
        "name": "A",
        "fields": [
            {"name": "a", "type": ["null", "long"], "doc": "one"},
            {
                "name": "b",
                "type": {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "B",
                        "fields": [{"name": "c", "type": "float"}],
                    },
                },
            },
        ],
    }

    rows = [(f["name"], f["type"], f["isNull"], f["doc"]) for f in fields_of(schema)]

    assert rows == [
        ("a", "long", True, "one"),
        ("b", "list of record B", False, ""),
        ("b.c", "float", False, ""),
    ]


def test_the_history_of_a_class_has_a_row_for_each_change():
    def alert(mjd, value):
        return {"midpointMjdTai": mjd, "outputs": {"context@1": {"contextClass": value, "x": 1.0}}}

    rows = class_history([alert(1.0, "a"), alert(2.0, "a"), alert(3.0, "b"), alert(4.0, "a")])

    told = [(r["value"], r["first"], r["last"], r["alerts"], r["isNewest"]) for r in rows]
    assert told == [("a", 4.0, 4.0, 1, True), ("b", 3.0, 3.0, 1, False), ("a", 1.0, 2.0, 2, False)]


def test_the_latency_of_a_night_is_that_of_all_its_batches():
    told = [
        {"bounds": [1.0, 5.0], "counts": [3, 1, 0], "sum": 5.0},
        {"bounds": [1.0, 5.0], "counts": [0, 0, 4], "sum": 91.0},
    ]

    found = latency_of_batches(told)

    assert found["messages"] == 8
    assert found["mean"] == 12.0
    assert found["shares"] == [(0.5, 5.0), (0.95, None), (0.99, None)]
    assert [one["count"] for one in found["within"]] == [3, 1, 4]


def test_an_alert_is_marked_in_the_middle_of_its_own_cutout(broker):
    seen = 0
    for alert in _alerts(broker, "lsst"):
        view = sky_view(broker.sources, broker.sources.packet(alert), [alert])
        own = [mark for mark in view["marks"] if mark["layer"] == "alerts"]
        for mark in own:
            seen += 1
            assert abs(mark["x"] - view["width"] / 2) <= 1.0
            assert abs(mark["y"] - view["height"] / 2) <= 1.0
    assert seen


def _alerts(broker, survey):
    rows = search(broker.sources, Wanted(survey=survey), limit=10).rows
    return [broker.sources.alert(survey, row["diaSourceId"]) for row in rows]
