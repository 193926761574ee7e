"""Objects and alerts come whole, exact, and only those that everyone may see."""

import csv
import io
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from broker.alerts.adapters import find_adapters
from broker.api.questions import EXAMPLE_ALERT, EXAMPLE_OBJECT

V1 = "/api/v1"
VO = "{http://www.ivoa.net/xml/VOTable/v1.3}"


def read_csv(answer):
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_an_object_has_its_alerts_oldest_first(client, words):
    body = client.get(f"{V1}/objects/sim/{words.BIG}").json()

    assert body["objectId"] == words.BIG
    assert body["nAlerts"] == 2
    times = [alert["midpointMjdTai"] for alert in body["data"]]
    assert times == sorted(times)
    assert body["data"][0]["outputs"] == {"rise_rate@1.0.0": {"riseRate": 1.5}}
    assert body["data"][0]["provenance"]["code"] == "0.1.0"
    # 61000 d TAI is 2025-11-21; UTC is 37 s behind.
    assert body["firstUtc"] == "2025-11-20T23:59:23.000Z"


@pytest.mark.parametrize("form", ["json", "csv", "votable", "parquet"])
def test_ids_of_64_bits_are_exact_in_every_format(client, words, form):
    answer = client.get(f"{V1}/objects/sim/{words.BIG}?format={form}&columns=diaObjectId,visit")

    if form == "json":
        rows = answer.json()["data"]
    elif form == "csv":
        rows = read_csv(answer)
    elif form == "parquet":
        rows = pq.read_table(io.BytesIO(answer.content)).to_pylist()
    else:
        root = ElementTree.fromstring(answer.text)
        names = [field.get("name") for field in root.iter(f"{VO}FIELD")]
        rows = [
            dict(zip(names, [cell.text for cell in row], strict=True))
            for row in root.iter(f"{VO}TR")
        ]
    assert [row["diaObjectId"] for row in rows] == [words.BIG] * 2
    assert [row["visit"] for row in rows] == [str(2**62 + 1)] * 2


def test_null_is_null_in_every_format(client, words):
    url = f"{V1}/objects/sim/{words.BIG}?columns=diaSourceId,reliability&format="

    as_json = client.get(url + "json").json()["data"]
    as_csv = read_csv(client.get(url + "csv"))
    as_parquet = pq.read_table(io.BytesIO(client.get(url + "parquet").content)).to_pylist()
    root = ElementTree.fromstring(client.get(url + "votable").text)

    assert [row["reliability"] for row in as_json] == [None, 0.5]
    assert [row["reliability"] for row in as_csv] == ["", "0.5"]
    assert [row["reliability"] for row in as_parquet] == [None, 0.5]
    assert [row[1].text for row in root.iter(f"{VO}TR")] == [None, "0.5"]


def test_a_votable_is_read_by_astropy_with_its_units(client, words):
    from astropy.io.votable import parse_single_table

    body = client.get(f"{V1}/objects/sim/{words.BIG}?format=votable").content

    table = parse_single_table(io.BytesIO(body)).to_table()
    assert list(table["diaObjectId"]) == [words.BIG] * 2
    assert str(table["psfFlux"].unit) == "nJy"
    assert table["reliability"].mask.tolist() == [True, False]


def test_the_format_may_be_asked_for_by_the_header_accept(client, words):
    url = f"{V1}/objects/sim/{words.BIG}"

    assert (
        client.get(url, headers={"Accept": "text/csv"})
        .headers["content-type"]
        .startswith("text/csv")
    )
    assert "json" in client.get(url, headers={"Accept": "*/*"}).headers["content-type"]
    assert client.get(url, headers={"Accept": "image/png"}).status_code == 406


def test_many_objects_are_asked_for_at_once_and_missing_ones_are_named(client, words):
    ids = [words.BIG, "across", "nothing", "secret", *(f"no{i}" for i in range(1000))]

    body = client.post(f"{V1}/objects", json={"survey": "sim", "ids": ids}).json()

    assert [row["objectId"] for row in body["data"]] == [words.BIG, "across"]
    assert body["missing"] == ids[2:]


def test_a_cone_over_ra_0_finds_both_sides_nearest_first(client, words):
    body = client.get(f"{V1}/cone-search?ra=0&dec=0&radiusArcsec=5").json()

    assert [row["objectId"] for row in body["data"]] == ["across", words.BIG]
    assert body["total"] == 2
    # sqrt(0.36² + 0.036²) arcsec
    assert body["data"][0]["separation"] == pytest.approx(0.36180, abs=1e-4)
    same = client.get(f"{V1}/cone-search?ra=360&dec=0&radiusArcsec=5").json()
    assert [row["objectId"] for row in same["data"]] == ["across", words.BIG]


def test_a_cone_at_the_pole_is_answered(client):
    assert client.get(f"{V1}/cone-search?ra=12&dec=90&radiusArcsec=3600").json()["total"] == 0


def test_pages_of_a_cone_make_the_whole(client, words):
    url = f"{V1}/cone-search?ra=0&dec=0&radiusArcsec=5&limit=1"

    first = client.get(url).json()
    second = client.get(f"{url}&cursor={first['next']}").json()

    assert [row["objectId"] for row in first["data"] + second["data"]] == ["across", words.BIG]
    assert second["next"] is None


def test_what_is_not_public_is_not_there(client, words):
    assert client.get(f"{V1}/objects/sim/secret").status_code == 404
    assert client.get(f"{V1}/alerts/sim/{2**63 - 5}").status_code == 404
    assert client.get(f"{V1}/resolve?q=secret").json()["matches"] == []
    cone = client.get(f"{V1}/cone-search?ra=359.9997&dec=0&radiusArcsec=3600").json()
    assert "secret" not in [row["objectId"] for row in cone["data"]]


def test_of_an_object_whose_newest_alert_is_not_public_the_last_public_one_is_shown(client):
    cone = client.get(f"{V1}/cone-search?ra=200&dec=-30&radiusArcsec=5").json()
    body = client.get(f"{V1}/objects/sim/half").json()

    assert [row["diaSourceId"] for row in cone["data"]] == [str(2**63 - 6)]
    assert [row["diaSourceId"] for row in body["data"]] == [str(2**63 - 6)]


def test_a_history_has_each_epoch_once_with_limits_and_forced_fluxes(client, broker):
    for survey in ("ztf", "lsst"):
        topic = broker.sources.run.alerts_topic(survey)
        message = next(broker.topics.read(topic, partition=0, first=0, end=1))
        packet = find_adapters()[survey].decode_one(message.value, message.coordinate)
        name = packet["diaObjectId"][0].as_py()
        alert = broker.store.object(survey, name)[-1]
        told = broker.sources.packet(alert).history

        rows = client.get(f"{V1}/objects/{survey}/{name}/history").json()["data"]

        assert len(rows) == len(told)  # the alert's own epoch is the last one of its history
        assert rows[-1]["diaSourceId"] == alert["diaSourceId"]
        assert {row["kind"] for row in rows} == {entry["kind"] for entry in told}
        limits = [row for row in rows if row["kind"] == "upper-limit"]
        assert all(row["psfFlux"] is None and row["limitingMag"] is not None for row in limits)


def test_a_packet_comes_as_it_came_in(client, broker):
    got = client.get(f"{V1}/alerts/ztf/{EXAMPLE_ALERT}/packet")

    topic = broker.sources.run.alerts_topic("ztf")
    sent = [m.value for m in broker.topics.read(topic, partition=0, first=0, end=3)]
    assert got.content in sent
    assert "attachment" in got.headers["content-disposition"]


def test_a_packet_with_an_epoch_that_is_not_public_is_not_handed_out(client, broker, monkeypatch):
    packet = broker.sources.packet(broker.store.alert("ztf", EXAMPLE_ALERT))
    packet.canonical["history"][0]["isPublic"] = False
    monkeypatch.setattr(broker.sources, "packet", lambda alert: packet)

    assert client.get(f"{V1}/alerts/ztf/{EXAMPLE_ALERT}/packet").status_code == 403
    rows = client.get(f"{V1}/objects/ztf/{EXAMPLE_OBJECT}/history").json()["data"]
    assert len(rows) == len(packet.canonical["history"]) - 1


@pytest.mark.parametrize(
    ("url", "status", "words_of_it"),
    [
        ("/objects/hst/1", 404, "there is no survey 'hst'; there are lsst, sim, ztf"),
        ("/objects/sim/1?format=xml", 400, "there is no format 'xml'"),
        ("/objects/ztf/ZTF24qmscadj?columns=colour", 400, "there is no column 'colour'"),
        ("/cone-search?ra=1&dec=1&radius=3", 400, "there is no parameter 'radius' here"),
        ("/cone-search?ra=1", 422, "dec: Field required"),
        ("/cone-search?ra=1&dec=91", 422, "less than or equal to 90"),
        ("/cone-search?ra=1&dec=1&radiusArcsec=99999", 422, "less than or equal to 3600"),
        ("/cone-search?ra=nan&dec=1", 422, "ra"),
        ("/cone-search?ra=0&dec=0&cursor=abc", 400, "the cursor is not one that an answer gave"),
        ("/nights/2025", 400, "'2025' is no night"),
        ("/topics/nothing/alerts", 404, "there is no topic 'nothing'"),
        ("/alerts/ztf/2301100000015000000/cutouts/colour", 400, "there is no cutout 'colour'"),
        ("/resolve?q=planet:9", 400, "planet: is not understood"),
        ("/nothing", 404, "there is no such page"),
    ],
)  # fmt: skip
def test_an_error_says_what_is_wrong(client, url, status, words_of_it):
    answer = client.get(V1 + url)

    assert answer.status_code == status
    assert words_of_it in answer.json()["error"]
    if status == 400 and "cursor" not in url:
        assert answer.json()["allowed"]


def test_a_simple_cone_search_is_what_tools_of_the_virtual_observatory_expect(client, words):
    from astropy.io.votable import parse_single_table

    answer = client.get(f"{V1}/vo/cone?RA=0&DEC=0&SR=0.002&VERB=2")

    table = parse_single_table(io.BytesIO(answer.content))
    main = {field.ucd: field.name for field in table.fields if field.ucd}
    assert main["ID_MAIN"] == "objectId"
    assert (main["POS_EQ_RA_MAIN"], main["POS_EQ_DEC_MAIN"]) == ("ra", "dec")
    assert list(table.to_table()["objectId"]) == ["across", words.BIG]
    columns = parse_single_table(io.BytesIO(client.get(f"{V1}/vo/cone?RA=0&DEC=0&SR=0").content))
    assert [f.name for f in columns.fields] == [f.name for f in table.fields]
    assert len(columns.array) == 0


@pytest.mark.parametrize(
    "question", ["RA=0&DEC=0", "RA=x&DEC=0&SR=1", "RA=0&DEC=99&SR=1", "RA=0&DEC=0&SR=nan"]
)
def test_an_error_of_the_cone_search_is_a_votable_that_says_so(client, question):
    root = ElementTree.fromstring(client.get(f"{V1}/vo/cone?{question}").text)

    assert root.find(f"{VO}INFO").get("ID") == "Error"
