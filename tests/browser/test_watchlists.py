"""A person keeps watchlists on the portal's page: adds a file, sees the list, removes it."""

import json

import pytest


def fill(browser, selector, text):
    script = f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}; true"
    assert browser.run(script)


def choose_file(browser, selector, path):
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


@pytest.mark.parametrize("page", ["/watchlists", "/watchlists/stars", "/account"])
def test_a_page_fits_a_phone_and_asks_nothing_of_another_machine(browser, site, page):
    browser.size(390, 844, phone=True)

    browser.open(site + page)

    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert not browser.problems
    assert all(one.startswith((site, "data:")) for one in browser.requests)


def test_a_file_becomes_a_list_and_the_list_is_removed(browser, site, owners, tmp_path):
    (tmp_path / "mine.csv").write_text("id,ra,dec\na,1,2\nb,3,4\n")
    token = owners.add("person")
    browser.open(site + "/account")
    fill(browser, "#token", token)
    browser.click("button[value=sign-in]")
    browser.wait("document.querySelector('h1')?.textContent === 'person'")
    browser.open(site + "/watchlists")

    choose_file(browser, "#w-file", tmp_path / "mine.csv")
    browser.wait("document.getElementById('w-entries').value.length > 10")
    fill(browser, "#w-name", "my-own")
    browser.click("button[value=add]")

    browser.wait("/begins within seconds/.test(document.querySelector('main')?.textContent)")
    browser.wait("document.readyState === 'complete'")
    said = browser.run("document.querySelector('main').textContent")
    assert "The topic watchlist-my-own begins within seconds." in said
    assert "2 positions" in said
    assert not browser.problems
    browser.click("article button[value=remove]")
    browser.wait("/my-own is removed/.test(document.body?.textContent)")
    browser.open(site + "/account")
    browser.click("button[value=sign-out]")
    browser.wait("document.querySelector('#token') !== null")
