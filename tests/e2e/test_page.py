"""The admin listener's page as a person uses it, in a headless Chromium before a real edge."""

from __future__ import annotations

import http.client

import pytest

from tests.admin_client import admin_of, admin_variables
from tests.browser import open_browser
from tests.harness import frontend, row
from tests.traffic import named

WRONG = "edge_" + "A" * 43


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def town(edge, origin, tmp_path, browser):
    """An edge with two backends and a gateway, and the page before it, without a token."""
    rows = [row("gru", origin(named("gru"))), row("<img src=x onerror=alert(1)>", origin(named("scl")), country="CL")]
    config = {
        "frontends": [
            frontend("tcp", "cities", algorithm="geo"),
            {"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True},
        ],
        "backends": [{"name": "cities", "app": ""}],
    }

    class Town:
        proxy = edge(rows, config=config, **admin_variables(tmp_path))
        admin = admin_of(proxy, tmp_path)
        page = browser
        url = "http://{}:{}/".format(*admin.address)

        def sign_in(self):
            self.page.open(self.url)
            self.page.wait_for("#token")
            self.page.fill("#token", self.admin.token)
            self.page.click("#sign-in button")
            self.page.wait_for("#age", "live")

        def answer(self, path):
            connection = http.client.HTTPConnection(*self.proxy.frontends["web"][0], timeout=10)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()

    browser.errors.clear()
    browser.requests.clear()
    return Town()


def test_it_asks_for_a_token_refuses_a_wrong_one_and_shows_the_edge_to_a_good_one(town):
    page = town.page
    page.open(town.url)
    assert page.text("#sign-in h1") == "Whose edge is this?"
    assert page.focused == "token"
    page.fill("#token", WRONG)
    page.press("Enter")
    page.wait_for("#refusal", "This is no valid token.")
    page.fill("#token", town.admin.token)
    page.press("Enter")
    page.wait_for("#age", "live")
    assert page.text("#bearer").startswith("first: ")
    assert page.texts("#pools td.name b") == ["gru", "<img src=x onerror=alert(1)>"]
    assert all(one.startswith(town.url) for one in page.requests if not one.startswith("data:"))
    assert [one for one in page.errors if "401" not in one] == []
