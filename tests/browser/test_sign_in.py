"""A person signs in with a provider on another site, and the browser's rules let them."""


def test_a_person_comes_back_from_their_provider_signed_in(browser, site, provider, owners):
    owners.add("traveller", openid=provider.claims["email"])
    browser.open(site + "/account")

    browser.click("a[href='/account/openid']")

    browser.wait("document.querySelector('h1')?.textContent === 'traveller'")
    browser.wait("location.pathname === '/account' && location.search === ''")
    assert any(one.startswith(f"{provider.url}/authorize?") for one in browser.requests)
    browser.open(site + "/watchlists")
    assert "Sign in" not in browser.run("document.querySelector('main').textContent")
    assert not browser.problems
    browser.open(site + "/account")
    browser.click("button[value=sign-out]")
    browser.wait("document.querySelector('#token') !== null")
