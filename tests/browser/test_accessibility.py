"""Every page can be used with eyes, ears, hands or keyboard alone: axe finds nothing serious."""

import importlib.resources

import pytest

from broker.api.questions import EXAMPLE_ALERT, EXAMPLE_OBJECT, EXAMPLE_SCHEMA, EXAMPLE_TOPIC

PAIR = "ZTF99pair"
PAGES = (
    "/",
    "/search?q=0.0+0.0+10",
    "/search?q=nothing-is-called-this",
    "/find",
    f"/find?topic={EXAMPLE_TOPIC}",
    f"/objects/ztf/{EXAMPLE_OBJECT}",
    f"/objects/ztf/{PAIR}",
    f"/alerts/ztf/{EXAMPLE_ALERT}/packet",
    "/topics",
    f"/topics/{EXAMPLE_TOPIC}",
    "/watchlists",
    "/watchlists/stars",
    "/account",
    "/nights",
    "/nights/20230420",
    "/statistics",
    f"/statistics?topic={EXAMPLE_TOPIC}",
    "/modules",
    "/schemas",
    f"/schemas/{EXAMPLE_SCHEMA}",
    "/health",
    "/quick-start",
    "/docs",
    "/no-such-page",
)
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="session")
def axe():
    """The script of axe-core."""
    folder = importlib.resources.files("axe_core_python")
    return (folder / "axe.min.js").read_text(encoding="utf-8")


def violations(browser, axe):
    """Return the serious violations of a page: rule, and the first element."""
    if not browser.run("typeof axe === 'object'"):
        browser.run(axe + "; true")
    found = browser.run(
        "axe.run(document, {resultTypes: ['violations']}).then((told) => ({"
        " rules: told.passes.length, violations: told.violations.map((v) =>"
        " [v.impact, v.id, v.nodes[0].html.slice(0, 160), v.nodes[0].failureSummary])}))"
    )
    assert found["rules"] > 10  # it did look
    return [one for one in found["violations"] if one[0] in SERIOUS]


@pytest.mark.parametrize("url", PAGES)
def test_a_page_has_nothing_that_shuts_people_out(browser, site, axe, url):
    for dark in (False, True):
        browser.size(1280, 900, dark=dark)
        browser.open(site + url)

        assert not violations(browser, axe)


@pytest.mark.parametrize("url", ["/", f"/objects/ztf/{PAIR}", f"/find?topic={EXAMPLE_TOPIC}"])
def test_a_page_on_a_phone_has_nothing_that_shuts_people_out(browser, site, axe, url):
    browser.size(390, 844, phone=True)
    browser.open(site + url)

    assert not violations(browser, axe)


def test_axe_finds_what_is_wrong(browser, site, axe):
    browser.open(site + "/topics")
    browser.run(
        "(() => { document.querySelector('main').insertAdjacentHTML('beforeend',"
        " '<img src=\"/static/icon.svg\"><input>'); })()"
    )

    assert {one[1] for one in violations(browser, axe)} >= {"image-alt", "label"}


def test_every_control_of_an_objects_page_is_reached_by_the_tab_key(browser, site):
    browser.open(f"{site}/objects/ztf/{PAIR}")
    wanted = browser.run(
        "[...document.querySelectorAll('#find-period, #lc-unit, #lc-period, #cut-epoch,"
        " #cut-stretch, #sky-kind, #sky-in, #sky-out, .sky-layer, #cut-packet')]"
        ".map((one) => one.id)"
    )
    reached = set()

    for _ in range(120):
        browser.press("Tab", 9)
        reached.add(browser.run("document.activeElement.id"))
        if reached >= set(wanted):
            break

    assert len(wanted) >= 9
    assert reached >= set(wanted)
