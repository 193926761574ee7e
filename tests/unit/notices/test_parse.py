"""Notices are read strictly, whatever a stranger sends."""

import gzip
import time

import pytest

from broker.errors import AlertError
from broker.notices import Ellipse, Notice, ProbabilityMap, parse_notice
from broker.units import mjd_tai_to_unix_s


def test_a_json_notice_has_its_place_time_and_names(gcn):
    notice = parse_notice(gcn())

    assert notice.notice_id == "Fermi:GBM:bn261120:initial:1"
    assert notice.event == "Fermi:bn261120"
    assert notice.place == Ellipse(10.0, -5.0, 2.0, 2.0, 0.0, 0.9)
    # 2026-11-20T03:04:05.25Z, by the calendar of another library
    from astropy.time import Time

    expected = Time("2026-11-20T03:04:05.25", scale="utc").tai.mjd
    assert notice.trigger_mjd_tai == pytest.approx(expected, abs=1e-9)
    assert not notice.is_test


def test_a_voevent_says_the_same_as_the_json(gcn, voevent):
    one, other = parse_notice(gcn()), parse_notice(voevent())

    assert other.notice_id == "ivo://nasa.gsfc.gcn/Fermi#GBM_1"
    assert (other.place, other.trigger_mjd_tai) == (one.place, one.trigger_mjd_tai)
    assert other.reporter == "ivo://nasa.gsfc.tan/gcn"


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"ra_dec_error": [3.0, 1.0, 30.0]}, Ellipse(10.0, -5.0, 3.0, 1.0, 30.0, 0.9)),
        (
            {"ra_dec_error": None, "position_a_error": 0.5, "containment_probability": None},
            Ellipse(10.0, -5.0, 0.5, 0.5, 0.0, 0.9),
        ),
        (
            {"ra_dec_error": None, "position_a_error": 2.0, "position_b_error": 1.0},
            Ellipse(10.0, -5.0, 2.0, 1.0, 0.0, 0.9),
        ),
    ],
)
def test_errors_of_a_position_are_read_in_each_form_of_the_schema(gcn, changes, place):
    assert parse_notice(gcn(**changes)).place == place


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trigger_time": None}, "no trigger_time"),
        ({"trigger_time": "yesterday"}, "no time as ISO 8601"),
        ({"trigger_time": 61000.0}, "no text"),
        ({"trigger_time": "0001-01-01T00:00:00Z"}, "not between 1980 and 2200"),
        ({"ra": "10"}, "no number"),
        ({"ra": True}, "no number"),
        ({"ra": 400.0}, "not on the sky"),
        ({"dec": -95.0}, "not on the sky"),
        ({"ra": 10**400}, "not finite"),
        ({"ra": None}, "no place"),
        ({"ra_dec_error": None}, "position without an error"),
        ({"ra_dec_error": 0.0}, "semi-axes are above 0"),
        ({"ra_dec_error": -1.0}, "semi-axes are above 0"),
        ({"ra_dec_error": [1.0, 2.0]}, "three parts"),
        ({"ra_dec_error": [1.0, 2.0, 0.0]}, "the larger one first"),
        ({"containment_probability": 1.0}, "containment probability is 1.0"),
        ({"containment_probability": 90.0}, "containment probability is 90.0"),
        ({"alert_type": "hello"}, "alert_type is 'hello'"),
        ({"id": [], "event_name": None}, "names no event"),
        ({"id": [7]}, "no text"),
        ({"healpix_file": "%%%"}, "no base64"),
        ({"healpix_file": "AAAA"}, "no FITS file"),
        ({"healpix_url": "https://example.org/a.fits"}, "not read here"),
    ],
)
def test_a_wrong_value_is_refused_with_its_reason(gcn, changes, reason):
    with pytest.raises(AlertError, match=reason):
        parse_notice(gcn(**changes))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, "empty"),
        (b"  ", "empty"),
        (b"hello", "neither a JSON object nor XML"),
        (b"[1]", "neither a JSON object nor XML"),
        (b"{", "no JSON"),
        (b'{"ra": NaN}', "NaN"),
        (b'{"ra": 1, "ra": 2}', "ra twice"),
        (b'{"a": "\xff"}', "no JSON"),
        (b'{"a": ' + b"[" * 100_000, "no JSON"),
        (b"<a>", "no XML"),
        (b"<a/>", "no VOEvent"),
    ],
)
def test_what_is_no_notice_is_refused(body, reason):
    with pytest.raises(AlertError, match=reason):
        parse_notice(body)


def test_an_entity_bomb_is_refused_before_it_grows():
    entities = "".join(
        f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' if i else '<!ENTITY l0 "lol">' for i in range(10)
    )
    body = f'<?xml version="1.0"?><!DOCTYPE lolz [{entities}]><lolz>&l9;</lolz>'.encode()
    began = time.process_time()

    with pytest.raises(AlertError, match="DOCTYPE"):
        parse_notice(body)

    assert time.process_time() - began < 5.0  # 10^9 words would take minutes, if they had room


@pytest.mark.parametrize("kind", ["SYSTEM 'file:///etc/passwd'", "SYSTEM 'http://127.0.0.1/x'"])
def test_an_external_entity_is_never_opened(voevent, kind):
    head = f"<!DOCTYPE voe:VOEvent [<!ENTITY x {kind}>]>\n<voe:VOEvent"
    body = voevent(old="<voe:VOEvent", new=head).replace(b"10.0", b"&x;")

    with pytest.raises(AlertError, match="DOCTYPE"):
        parse_notice(body)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("VOEvent/v2.0", "VOEvent/v1.1", "no VOEvent 2.0"),
        ('version="2.0"', 'version="1.1"', "not 2.0"),
        ('role="observation"', 'role="utility"', "role is 'utility'"),
        ("ivo://nasa.gsfc.gcn/Fermi#GBM_1", "GBM_1", "begins with ivo://"),
        ('id="UTC-FK5-GEO"', 'id="UTC-GAL-GEO"', "UTC-GAL-GEO"),
        ('id="UTC-FK5-GEO"', 'id="TDB-ICRS-GEO"', "TDB-ICRS-GEO"),
        ('unit="deg"', 'unit="rad"', "in rad"),
        ("<C1>10.0</C1>", "", "no C1"),
        ("<C1>10.0</C1>", "<C1>ten</C1>", "no number"),
        ("<C2>-5.0</C2>", "<C2>nan</C2>", "not finite"),
        ("<Error2Radius>2.0</Error2Radius>", "", "no Error2Radius"),
        ("<ISOTime>2026-11-20T03:04:05.25</ISOTime>", "", "no ISOTime"),
    ],
)
def test_a_wrong_voevent_is_refused_with_its_reason(voevent, old, new, reason):
    with pytest.raises(AlertError, match=reason):
        parse_notice(voevent(old=old, new=new))


def test_deep_and_long_documents_are_refused():
    for body in (b"<a>" * 200 + b"</a>" * 200, b"<a>" + b"<b/>" * 30_000 + b"</a>"):
        with pytest.raises(AlertError, match="more than"):
            parse_notice(body)


def test_citations_make_updates_and_retractions(voevent):
    cite = '<Citations><EventIVORN cite="{}">ivo://a/b#1</EventIVORN></Citations>'

    update = parse_notice(voevent(end=cite.format("supersedes")))
    retraction = parse_notice(voevent(end=cite.format("retraction")))

    assert (update.kind, update.cites, update.event) == ("update", "ivo://a/b#1", "ivo://a/b#1")
    assert (retraction.kind, retraction.place) == ("retraction", None)
    with pytest.raises(AlertError, match="a citation is 'denies'"):
        parse_notice(voevent(end=cite.format("denies")))


@pytest.mark.parametrize(
    "changes", [{"alert_type": "test"}, {"alert_tense": "mock"}, {"alert_tense": "injection"}]
)
def test_a_notice_of_no_real_event_is_a_test(gcn, changes):
    assert parse_notice(gcn(**changes)).is_test


def test_a_voevent_for_tests_is_a_test(voevent):
    assert parse_notice(voevent(old='role="observation"', new='role="test"')).is_test


def test_a_map_may_stand_in_either_form_of_notice(gcn, voevent, sky_map, encoded, tmp_path):
    data, _ = sky_map()
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(data))
    param = '<Param name="{}" value="{}"/>'

    found = [
        parse_notice(gcn(healpix_file=encoded(data))),
        parse_notice(gcn(healpix_file=encoded(gzip.compress(data)))),
        parse_notice(gcn(healpix_url="a.fits.gz"), maps=tmp_path),
        parse_notice(voevent(what=param.format("healpix_file", encoded(data)))),
        parse_notice(voevent(what=param.format("skymap_fits", "a.fits.gz")), maps=tmp_path),
    ]

    for notice in found:
        assert isinstance(notice.place, ProbabilityMap)
        assert notice.place.likeliest == found[0].place.likeliest


@pytest.mark.parametrize(
    "name", ["../secret.fits", "/etc/passwd", "file:///etc/passwd", "sub/../../secret.fits"]
)
def test_a_map_outside_its_folder_is_not_read(gcn, sky_map, tmp_path, name):
    (tmp_path / "maps").mkdir()
    (tmp_path / "secret.fits").write_bytes(sky_map()[0])

    with pytest.raises(AlertError, match="not in the folder of maps"):
        parse_notice(gcn(healpix_url=name), maps=tmp_path / "maps")


def test_a_link_out_of_the_folder_of_maps_is_not_followed(gcn, sky_map, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "secret.fits").write_bytes(sky_map()[0])
    (tmp_path / "maps" / "a.fits").symlink_to(tmp_path / "secret.fits")

    with pytest.raises(AlertError, match="not in the folder of maps"):
        parse_notice(gcn(healpix_url="a.fits"), maps=tmp_path / "maps")


def test_a_notice_is_the_same_after_it_was_stored(gcn, voevent, sky_map, encoded):
    data, _ = sky_map(order=3)

    for body in (gcn(), voevent(), gcn(alert_type="retraction", ra=None)):
        notice = parse_notice(body)
        assert Notice.from_cells(notice.to_cells()) == notice
    mapped = parse_notice(gcn(healpix_file=encoded(data)))
    again = Notice.from_cells(mapped.to_cells())
    assert (again.place.first == mapped.place.first).all()
    assert (again.place.levels == mapped.place.levels).all()


def test_fields_that_are_not_used_do_no_harm(gcn):
    assert parse_notice(gcn(far=1e-3, net_count_rate=[1, 2], comments={"a": None}))


def test_times_with_a_zone_are_converted(gcn):
    notice = parse_notice(gcn(trigger_time="2026-11-20T04:04:05+01:00"))

    seconds = float(mjd_tai_to_unix_s(notice.trigger_mjd_tai))
    assert seconds == pytest.approx(1795143845.0, abs=1e-3)
