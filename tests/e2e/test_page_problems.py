"""The web page in trouble and at size: what is wrong and where the log says more; search, order, and confirmation."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from app.domain.endpoints import Endpoint
from app.outbound.peewee_gateway import SqliteGatewayStore
from tests.admin_client import admin_of, admin_variables
from tests.e2e.conftest import HOSTILE
from tests.harness import eventually, frontend, row
from tests.traffic import named, serving, who

FAILS = "def handle(request, context):\n    raise ValueError('no')\n"
WORKS = "def handle(request, context):\n    return 'yes'\n"


def choose(page, selector, value):
    page.evaluate(
        f"(() => {{ const one = document.querySelector({selector!r}); one.value = {value!r};"
        " one.dispatchEvent(new Event('change')); })()"
    )


def names(page):
    return page.texts("#pools td.name b")


def test_an_unhealthy_backend_comes_first_with_its_cause_its_time_and_its_log_lines(edge, visit, tmp_path):
    page = visit.page
    config = {
        "frontends": [frontend("tcp", "cities", algorithm="geo")],
        "backends": [{"name": "cities", "app": "", "health_check": {"type": "tcp", "interval": "0.1s"}}],
    }
    with serving(named("alive")) as alive:
        with serving(named("ill")) as ill:
            proxy = edge([row("alive", alive), row("ill", ill)], config=config, **admin_variables(tmp_path))
            visit.sign_in(admin_of(proxy, tmp_path))
            page.wait_for("#no-problems", "None")
            assert names(page) == ["alive", "ill"]
        page.wait_for("#problem-list", "Backend ill of pool cities is unhealthy")
        assert page.text("#problem-list .why") == "its probes fail"
        assert page.text("#problem-list .since").startswith("since ")
        eventually(lambda: names(page) == ["ill", "alive"], what="the problem is the first row")
        page.click("#problem-list button")
        page.wait_for("#log-lines", "backend=ill")
        assert page.evaluate("document.getElementById('log-search').value") == "backend=ill"
        assert all("backend=ill" in text for text in page.texts("#log-lines .facts"))
        page.fill("#log-search", "")
    page.wait_for("#problem-list", "Pool cities: every backend is down")


def test_a_damaged_row_of_the_gateway_is_named_with_its_fault_and_its_log_lines(edge, visit, tmp_path):
    page = visit.page
    store = SqliteGatewayStore(tmp_path / "gateway.db")
    store.create_endpoint(Endpoint("bad", "bad", "/bad"))
    store.close()
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as database, database:
        database.execute("UPDATE endpoints SET timeout_seconds = 'soon'")
    with serving(named("alive")) as alive:
        visit.sign_in(admin_of(edge([row("alive", alive)], **admin_variables(tmp_path)), tmp_path))
        page.wait_for("#problem-list", "Endpoint bad is damaged and left out")
        assert "timeout_seconds" in page.text("#problem-list .why")
        page.click("#problem-list button")
        page.wait_for("#log-lines", "gateway: endpoint bad is damaged")


def test_an_endpoint_has_rate_latency_errors_and_its_log_lines(town, visit):
    page = visit.page
    for name, source in (("bad", FAILS), ("good", WORKS)):
        town.admin.call("POST", "/api/endpoints", {"id": name, "path": f"/{name}"})
        assert town.admin.call("POST", f"/api/endpoints/{name}/deploy", {"source": source}).status == 200
    visit.sign_in(town.admin)
    page.wait_for("#endpoint-rows", "good")
    for _ in range(3):
        assert town.response("/bad")[0] == 500
        assert town.response("/good")[0] == 200
    page.wait_for("#problem-list", "Endpoint bad fails")
    page.wait_for("#problem-list .why", "3 of 3 requests in the last two minutes")
    page.wait_for("#endpoint-rows tr:nth-child(1)", "median of 3")
    bad = page.text("#endpoint-rows tr:nth-child(1)")
    assert "3 in all" in bad
    assert " ms" in bad
    assert "Endpoint good" not in page.text("#problem-list")
    page.click("[aria-label='Log lines of endpoint good']")
    page.wait_for("#log-lines", "endpoint=good")
    assert "endpoint=bad" not in page.text("#log-lines")


def test_a_thousand_backends_are_searched_filtered_and_sorted(edge, visit, tmp_path):
    page = visit.page
    rows = [row(f"b{number:04}", 1 + number, weight=number % 100 and 1) for number in range(1000)]
    config = {"frontends": [frontend("tcp", "cities")], "backends": [{"name": "cities", "app": ""}]}
    proxy = edge(rows, config=config, **admin_variables(tmp_path))
    proxy.wait_for_backends(990)
    visit.sign_in(admin_of(proxy, tmp_path))
    page.wait_for(".pool h3", "200 are shown: search or sort for others")
    assert len(names(page)) == 200
    page.fill("#search", "B0777")
    eventually(lambda: names(page) == ["b0777"])
    page.wait_for(".pool h3", "1 of 1,000 match")
    page.fill("#search", "")
    choose(page, "#state-filter", "weight 0")
    eventually(lambda: len(names(page)) == 10)
    assert {text for text in page.texts("#pools .pill")} == {"weight 0"}
    choose(page, "#state-filter", "problems")
    page.wait_for("#no-matches", "No backend matches.")
    choose(page, "#state-filter", "")
    for first, order in (("b0000", "ascending"), ("b0999", "descending")):
        page.click("#pools th .sort")
        eventually(lambda first=first: names(page)[0] == first)
        assert page.evaluate("document.querySelector('#pools th').ariaSort") == order
    page.wait_for("#legend", "10 weight 0")


def test_the_last_backend_that_takes_clients_is_drained_only_when_confirmed(town, visit):
    page = visit.page
    visit.sign_in(town.admin)
    page.click("[aria-label='Drain gru']")
    page.wait_for("[aria-label='Undrain gru']")
    button = "#pools tr:not(:has([aria-label='Undrain gru'])) .action button"
    page.click(button)
    page.wait_for("#confirm-text", f"{HOSTILE} is the last backend of pool cities that takes clients.")
    page.press("Escape")
    page.wait_for("#figures", "1 of 2")
    assert who(town.proxy, frontend="tcp") == "scl"
    page.click(button)
    page.click("#confirm-yes")
    page.wait_for("#figures", "0 of 2")
    page.wait_for("#problem-list", "Frontend tcp is dark")
    page.click("[aria-label='Log lines: Frontend tcp is dark']")
    page.wait_for("#log-lines", "no candidate backend for frontend tcp")


def test_charts_and_the_map_say_what_they_show(town, visit):
    page = visit.page
    visit.sign_in(town.admin)
    page.wait_for("#figures .axis", "2 min ago")
    page.wait_for("#frontend-rows .axis", "max 0/s")
    page.wait_for("#pools th.history", "10 min ago")
    assert page.text("#key-client") == "", "no client, no key"
    who(town.proxy, frontend="tcp")
    page.wait_for("#map-note", "1 client from an unknown country")
