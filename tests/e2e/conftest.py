"""Fixtures for tests of the web page: a headless Chromium and a real edge."""

from __future__ import annotations

import http.client

import pytest

from tests.admin_client import admin_of, admin_variables
from tests.browser import open_browser
from tests.harness import frontend, row
from tests.traffic import named

HOSTILE = "<img src=x onerror=alert(1)>/%2F\"'&amp;"
"""A possible id of a backend."""
CONFIG = {
    "frontends": [
        frontend("tcp", "cities", algorithm="geo"),
        {"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True},
    ],
    "backends": [{"name": "cities", "app": ""}],
}


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def visit(browser):
    """The page without a token. At the end, checks that it requested nothing else and logged no error."""
    browser.resize(1360, 900)
    browser.open("about:blank")
    browser.errors.clear()
    browser.requests.clear()

    class Visit:
        page = browser
        url = ""
        expected = ()
        """Texts of errors that the test causes."""

        def open(self, admin):
            self.url = "http://{}:{}/".format(*admin.address)
            browser.open(self.url)
            browser.evaluate("sessionStorage.clear()")  # of an earlier edge on this port
            browser.open(self.url)

        def sign_in(self, admin):
            self.open(admin)
            browser.fill("#token", admin.token)
            browser.click("#sign-in button")
            browser.wait_for("#age", "live")

    one = Visit()
    yield one
    asked = [url for url in browser.requests if not url.startswith("data:") and url != "about:blank"]
    assert asked
    assert [url for url in asked if not url.startswith(one.url)] == []
    assert [error for error in browser.errors if not any(text in error for text in one.expected)] == []


@pytest.fixture
def town(edge, origin, tmp_path):
    """An edge with two backends and a gateway."""
    rows = [row("gru", origin(named("gru"))), row(HOSTILE, origin(named("scl")), country="CL")]

    class Town:
        def start(self, **variables):
            self.proxy = edge(rows, config=CONFIG, **{**admin_variables(tmp_path), **variables})
            self.admin = admin_of(self.proxy, tmp_path)

        def response(self, path):
            connection = http.client.HTTPConnection(*self.proxy.frontends["web"][0], timeout=10)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()

    one = Town()
    one.start()
    return one
