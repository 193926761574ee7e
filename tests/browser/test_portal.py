"""What a person does in a browser works: search, look, click, sort, by mouse, keyboard, phone."""

import io
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from broker.api.questions import EXAMPLE_OBJECT, EXAMPLE_SCHEMA, EXAMPLE_TOPIC

PAIR = "ZTF99pair"
PAGES = (
    "/",
    "/topics",
    f"/topics/{EXAMPLE_TOPIC}",
    "/nights",
    "/modules",
    "/health",
    "/quick-start",
    "/docs",
    f"/objects/ztf/{EXAMPLE_OBJECT}",
    "/search?q=0.0+0.0+10",
    "/find",
    f"/find?topic={EXAMPLE_TOPIC}",
    "/statistics",
    "/nights/20230420",
    "/schemas",
    f"/schemas/{EXAMPLE_SCHEMA}",
)


def pixels(browser):
    return np.asarray(Image.open(io.BytesIO(browser.picture())).convert("L"), np.float64)


@pytest.mark.parametrize("url", PAGES)
def test_a_page_loads_without_error_and_asks_nothing_of_another_machine(browser, site, url):
    browser.open(site + url)

    assert not browser.problems
    assert browser.requests
    assert all(one.startswith((site, "data:")) for one in browser.requests)


@pytest.mark.parametrize("url", PAGES)
def test_a_page_fits_a_phone(browser, site, url):
    browser.size(390, 844, phone=True)

    browser.open(site + url)

    assert browser.run("document.documentElement.scrollWidth") <= 390


def test_a_page_follows_the_readers_choice_of_light_and_dark(browser, site):
    browser.open(site + "/topics")
    light = pixels(browser)
    browser.size(1280, 900, dark=True)
    dark = pixels(browser)

    assert np.median(light) > 230
    assert np.median(dark) < 50


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(browser, site, dark):
    """WCAG 2.1, 1.4.3: contrast of at least 4.5 for text and links."""
    browser.size(1280, 900, dark=dark)
    browser.open(f"{site}/objects/ztf/{EXAMPLE_OBJECT}")
    script = """(() => {
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => {
        const x = v / 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = (e) => { for (let n = e; n; n = n.parentElement) {
        const c = getComputedStyle(n).backgroundColor;
        if (c !== 'rgba(0, 0, 0, 0)') { return c; } } return 'rgb(255, 255, 255)'; };
      let worst = [99, ''];
      for (const e of document.querySelectorAll('main *, header *, footer *')) {
        if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) { continue; }
        if (e.closest('svg, script, option')) { continue; }
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < worst[0]) { worst = [ratio, e.outerHTML.slice(0, 120)]; }
      }
      return worst; })()"""

    ratio, element = browser.run(script)

    assert ratio >= 4.5, element


def test_a_person_searches_by_keyboard_alone(browser, site):
    browser.open(site)
    for _ in range(3):  # skip link, brand, box
        browser.press("Tab", 9)
    assert browser.run("document.activeElement.id") == "q"

    browser.type(EXAMPLE_OBJECT)
    browser.press("Enter", 13)

    browser.wait(f"location.pathname === '/objects/ztf/{EXAMPLE_OBJECT}'")
    browser.wait("document.querySelectorAll('.point').length > 0")
    assert browser.run("document.querySelector('h1').textContent").split() == [
        "ztf",
        EXAMPLE_OBJECT,
    ]


def open_pair(browser, site):
    browser.open(f"{site}/objects/ztf/{PAIR}")
    browser.wait("document.querySelectorAll('.point[data-alert]').length === 2")
    return browser.run("document.getElementById('cut-alert').textContent")


def test_a_click_on_a_point_shows_the_cutouts_of_that_epoch(browser, site):
    shown = open_pair(browser, site)
    other = browser.run(
        f"[...document.querySelectorAll('.point[data-alert]')].map((p) => p.dataset.alert)"
        f".find((name) => name !== '{shown}')"
    )

    browser.click(f'.point[data-alert="{other}"] .mark')

    browser.wait(f"document.querySelectorAll('#cut-images img[src*=\"/{other}/\"]').length === 3")
    browser.wait("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    assert browser.run("document.getElementById('cut-epoch').value") == other
    assert browser.run("document.querySelectorAll('.point.chosen').length") == 1
    assert not browser.problems


def test_arrow_keys_and_enter_choose_an_epoch(browser, site):
    shown = open_pair(browser, site)
    browser.run(
        f"document.querySelector('.point[data-alert]:not([data-alert=\"{shown}\"])').focus()"
    )

    browser.press("ArrowRight", 39)
    browser.press("ArrowLeft", 37)
    browser.press("Enter", 13)

    browser.wait(f"document.getElementById('cut-alert').textContent !== '{shown}'")


def test_the_epoch_picker_changes_cutouts_and_the_point_that_is_marked(browser, site):
    shown = open_pair(browser, site)

    browser.run(
        "(() => { const list = document.getElementById('cut-epoch');"
        " list.selectedIndex = 1 - list.selectedIndex;"
        " list.dispatchEvent(new Event('change')); })()"
    )

    browser.wait(f"document.querySelector('.point.chosen').dataset.alert !== '{shown}'")


def test_flux_and_magnitude_are_two_views_of_the_same_epochs(browser, site):
    browser.open(f"{site}/objects/ztf/{EXAMPLE_OBJECT}")
    n_flux = browser.run("document.querySelectorAll('.point').length")

    browser.run(
        "(() => { const unit = document.getElementById('lc-unit'); unit.value = 'mag';"
        " unit.dispatchEvent(new Event('change')); })()"
    )

    assert "AB magnitude" in browser.run("document.querySelector('#light-curve svg').textContent")
    # Bright is up: the fainter of two points stands lower.
    drawn = browser.run(
        "[...document.querySelectorAll('.point.detection')].map((p) => ["
        " parseFloat(p.getAttribute('aria-label').match(/, ([\\d.]+) ± [\\d.]+ mag/)?.[1]),"
        " p.querySelector('circle').cy.baseVal.value]).filter(([m]) => m > 0)"
    )
    magnitudes, heights = np.array(drawn).T
    assert len(magnitudes) > 2
    assert (np.argsort(magnitudes) == np.argsort(heights)).all()
    assert browser.run("document.querySelectorAll('.point').length") <= n_flux


def test_a_band_that_is_switched_off_is_not_drawn(browser, site):
    browser.open(f"{site}/objects/ztf/{EXAMPLE_OBJECT}")
    before = browser.run("document.querySelectorAll('.point.b-g').length")

    browser.click(".legend input")

    assert before > 0
    assert browser.run("document.querySelectorAll('.point.b-g').length") == 0
    assert browser.run("document.querySelectorAll('.point.b-r').length") > 0


@pytest.mark.parametrize("kind", ["forced", "upper-limit"])
def test_forced_photometry_and_limits_are_switched_off_and_on(browser, site, kind):
    query = "fetch('/api/v1/objects?survey=ztf').then((a) => a.json()).then((a) => a.data)"
    browser.open(site)
    for name in [row["objectId"] for row in browser.run(query)]:
        browser.open(f"{site}/objects/ztf/{name}")
        epochs = browser.run(
            "JSON.parse(document.getElementById('light-curve-data').textContent).epochs"
        )
        of_kind = sum(epoch["kind"] == kind for epoch in epochs)
        if of_kind:
            break
    count = "document.querySelectorAll('#light-curve .point').length"
    assert browser.run(count) == len(epochs) > of_kind > 0

    browser.click(f".legend input[data-of={kind}]")

    assert browser.run(count) == len(epochs) - of_kind
    browser.click(f".legend input[data-of={kind}]")
    assert browser.run(count) == len(epochs)
    assert not browser.problems


def test_the_download_is_the_history_that_is_drawn(browser, site):
    browser.open(f"{site}/objects/ztf/{EXAMPLE_OBJECT}")

    text = browser.run(
        "fetch(document.querySelector('a[href$=\"history?format=csv\"]').href)"
        ".then((answer) => answer.text())"
    )

    n_epochs = browser.run(
        "JSON.parse(document.getElementById('light-curve-data').textContent).epochs.length"
    )
    assert len(text.strip().splitlines()) == n_epochs + 1


def test_a_head_of_a_table_sorts_it_by_number(browser, site):
    browser.open(f"{site}/search?q=0.0+0.0+10")
    column = browser.run(
        "[...document.querySelectorAll('table.sortable th')].findIndex("
        "(cell) => cell.textContent.startsWith('RA'))"
    )
    read = (
        "[...document.querySelectorAll('table.sortable tbody tr')].map("
        f"(row) => parseFloat(row.cells[{column}].textContent))"
    )

    browser.click(f"table.sortable th:nth-child({column + 1}) button")
    rising = browser.run(read)
    browser.click(f"table.sortable th:nth-child({column + 1}) button")
    falling = browser.run(read)

    assert rising == sorted(rising)
    assert falling == sorted(rising, reverse=True)
    assert len(rising) == 2


def test_code_of_a_topic_can_be_copied(browser, site):
    browser.open(f"{site}/topics/{EXAMPLE_TOPIC}")
    browser.run(
        "(() => { window.copied = null;"
        " navigator.clipboard.writeText = async (text) => { window.copied = text; }; })()"
    )

    browser.click(".code .copy")

    browser.wait("window.copied !== null")
    assert f'subscribe("{EXAMPLE_TOPIC}"' in browser.run("window.copied")


def test_an_identifier_of_64_bits_is_exact_on_the_page(browser, site):
    name = str(2**63 - 25)

    browser.open(f"{site}/search?q={name}")

    assert browser.run("location.pathname") == f"/objects/sim/{name}"
    points = browser.run(
        "[...document.querySelectorAll('.point[data-alert]')].map((p) => p.dataset.alert)"
    )
    assert points == [str(2**63 - 1), str(2**63 - 2)]


def test_a_light_curve_is_folded_by_a_period(browser, site):
    browser.open(f"{site}/objects/ztf/{EXAMPLE_OBJECT}")
    n_points = browser.run("document.querySelectorAll('.point').length")

    browser.run("document.getElementById('lc-period').focus()")
    browser.type("2.5")

    browser.wait("document.querySelector('#light-curve svg').textContent.includes('of 2.5 d')")
    assert browser.run("document.querySelectorAll('.point').length") == 2 * n_points
    # Two points apart by one cycle are apart by 1 / 2.1 of the plot's width.
    places = browser.run(
        "(() => { const all = [...document.querySelectorAll('.point')].map((p) => ["
        " p.getAttribute('aria-label'), p.querySelector('circle[r=\"12\"]').cx.baseVal.value]);"
        " return [all, document.querySelector('#light-curve svg').viewBox.baseVal.width]; })()"
    )
    drawn, width = places
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        assert first[0] == second[0]
        assert second[1] - first[1] == pytest.approx((width - 66 - 14) / 2.1, rel=1e-6)
    browser.click("#lc-reset")
    assert browser.run("document.querySelectorAll('.point').length") == n_points
    assert not browser.problems


def test_a_flux_below_three_sigma_is_a_limit_in_magnitudes(browser, site):
    browser.open(f"{site}/objects/ztf/{EXAMPLE_OBJECT}")
    browser.run(
        "(() => { const unit = document.getElementById('lc-unit'); unit.value = 'mag';"
        " unit.dispatchEvent(new Event('change')); })()"
    )

    epochs = browser.run(
        "JSON.parse(document.getElementById('light-curve-data').textContent).epochs"
    )
    n_seen = sum(e["psfFlux"] is not None and e["psfFlux"] >= 3 * e["psfFluxErr"] for e in epochs)

    assert browser.run("document.querySelectorAll('.point.limit').length") == len(epochs) - n_seen
    assert n_seen > 0


def test_the_server_finds_periods_and_one_of_them_folds_the_light_curve(browser, site):
    browser.open(f"{site}/objects/ztf/{EXAMPLE_OBJECT}")

    browser.click("#find-period")

    browser.wait("document.querySelectorAll('#periodogram .peak').length > 0", 60.0)
    assert "epochs" in browser.run("document.getElementById('period-words').textContent")
    assert browser.run("document.querySelectorAll('#periodogram .power').length") == 1
    shown = browser.run("parseFloat(document.querySelector('.peak').textContent)")
    browser.click(".peak")
    folded = float(browser.run("document.getElementById('lc-period').value"))
    assert folded == pytest.approx(shown, rel=1e-5)
    assert "phase" in browser.run("document.querySelector('#light-curve svg').textContent")
    assert all(one.startswith((site, "data:")) for one in browser.requests)
    assert not browser.problems


def test_an_object_of_too_few_epochs_is_said_to_have_too_few_for_a_period(browser, site):
    browser.open(f"{site}/search?q={2**63 - 25}")

    browser.click("#find-period")

    browser.wait("document.getElementById('period-words').textContent.includes('8 epochs')")
    assert browser.run("document.getElementById('periodogram').hidden")


def test_the_sky_around_an_object_is_seen_nearer_with_other_pictures_and_without_marks(
    browser, site
):
    browser.open(f"{site}/search?q=topic:{EXAMPLE_TOPIC}")
    name = next(iter(made_sky(browser, site)))
    browser.open(f"{site}{name}")
    before = browser.run("document.getElementById('sky-view').viewBox.baseVal.width")

    browser.click("#sky-in")
    browser.run(
        "(() => { const kind = document.getElementById('sky-kind'); kind.value = 'science';"
        " kind.dispatchEvent(new Event('change')); })()"
    )
    browser.click("#sky-alerts")

    assert browser.run("document.getElementById('sky-view').viewBox.baseVal.width") == before / 2
    assert browser.run("document.querySelector('#sky-view image').href.baseVal").endswith(
        "/cutouts/science?format=png"
    )
    off = browser.run(
        "[...document.querySelectorAll('.layer-alerts')].map((m) => getComputedStyle(m).display)"
    )
    assert off
    assert set(off) == {"none"}
    assert all(one.startswith((site, "data:")) for one in browser.requests)


def made_sky(browser, site):
    """Yield pages of objects whose cutout says where its pixels are."""
    places = browser.run(
        "fetch('/api/v1/objects?survey=lsst&limit=5&columns=survey,objectId')"
        ".then((answer) => answer.json()).then((told) => told.data.map((row) =>"
        " `/objects/${row.survey}/${encodeURIComponent(row.objectId)}`))"
    )
    for place in places:
        browser.open(site + place)
        if browser.run("document.querySelectorAll('#sky-view .layer-alerts').length > 0"):
            yield place


def test_a_form_that_is_filled_in_becomes_an_address_that_can_be_handed_on(browser, site):
    browser.open(f"{site}/find")
    browser.run("document.getElementById('f-topic').focus()")
    browser.type(EXAMPLE_TOPIC)

    browser.press("Enter", 13)

    browser.wait("location.pathname === '/find' && location.search.length > 1")
    assert browser.run("location.search") == f"?topic={EXAMPLE_TOPIC}"
    browser.wait("document.querySelectorAll('.small-curve').length > 1")
    assert browser.run("document.getElementById('f-topic').value") == EXAMPLE_TOPIC
    n_rows = browser.run("document.querySelectorAll('table.sortable tbody tr').length")
    text = browser.run(
        "fetch([...document.querySelectorAll('a')].find((a) => a.textContent === 'CSV').href)"
        ".then((answer) => answer.text())"
    )
    assert len(text.strip().splitlines()) == n_rows + 1


def test_text_of_an_enemy_runs_nothing_and_stays_text(browser, site):
    name = '"><script>window.taken = 1</script><img src=x onerror="window.taken = 1">'
    stored = '"><script>alert(1)<b>'  # the name of an object of this broker
    for url in (
        f"/search?q={quote(name)}",
        f"/find?class={quote(name)}",
        f"/find?topic={quote(name)}",
        f"/statistics?class={quote(name)}",
        f"/topics/{quote(name, safe='')}",
        f"/objects/sim/{quote(name, safe='')}",
        f"/objects/sim/{quote(stored, safe='')}",
        "/search?q=90+45+10",
    ):
        browser.open(site + url)

        assert browser.run("window.taken === undefined"), url
        assert (
            browser.run("document.querySelectorAll('main script:not([type]), main b > b').length")
            == 0
        )
        assert all(one.startswith((site, "data:")) for one in browser.requests), url
    assert browser.run("document.querySelector('td a').textContent") == stored
