"""Using the web page: sign in, deploy, swap, roll back, drain."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import HOSTILE
from tests.harness import eventually
from tests.traffic import ask, who

WRONG = "edge_" + "A" * 43
BROKEN = "import json\n\nPRICE = int('ten')\n\ndef handle(request, context):\n    return 'broken'\n"


def says(text):
    return f"def handle(request, context):\n    return {text!r}\n"


@pytest.fixture
def page(visit):
    return visit.page


@pytest.fixture
def hello(town, visit, page):
    """The page with the deploy box of an endpoint that has no version yet."""
    assert town.admin.call("POST", "/api/endpoints", {"id": "hello", "path": "/hello"}).status == 201
    visit.sign_in(town.admin)
    page.click("#endpoint-rows button")
    page.wait_for("#no-versions", "No version yet")


def row_of(backend):
    return f"#pools tr:has([aria-label$={json.dumps(backend)}])"


def deploy(page, source, outcome):
    page.fill("#source", source)
    page.click("#deploy")
    page.wait_for("#outcome", outcome)


def test_it_requires_a_valid_token(town, visit, page):
    visit.open(town.admin)
    visit.expected = ["401"]
    assert page.text("#sign-in h1") == "Sign in to this edge"
    assert page.focused == "token"
    page.fill("#token", WRONG)
    page.press("Enter")
    page.wait_for("#sign-in-error", "This token is not valid.")
    assert page.text("#backends") == ""
    page.fill("#token", town.admin.token)
    page.press("Enter")
    page.wait_for("#age", "live")
    assert page.text("#bearer").startswith("token first · ")
    assert sorted(page.texts("#pools td.name b")) == sorted(["gru", HOSTILE])
    page.wait_for("#readiness", "ready")


def test_the_token_stays_in_the_tab_until_sign_out(town, visit, page):
    visit.sign_in(town.admin)
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 1]
    assert town.admin.token not in page.evaluate("document.documentElement.outerHTML")
    page.open(visit.url)
    page.wait_for("#age", "live")
    page.click("#sign-out")
    page.wait_for("#sign-in")
    assert page.evaluate("sessionStorage.length") == 0
    assert page.text("#backends") == ""
    page.open(visit.url)
    page.wait_for("#sign-in")


def test_a_revoked_token_is_signed_out_with_the_reason(town, visit, page):
    visit.sign_in(town.admin.bearer("guest", "read"))
    visit.expected = ["401"]
    assert town.admin.call("DELETE", "/api/tokens/guest").status == 204
    page.wait_for("#sign-in-error", "This token is no longer valid.")


def test_a_missing_scope_is_reported(town, visit, page):
    visit.expected = ["403"]
    visit.sign_in(town.admin.bearer("guest", "read"))
    page.click("[aria-label='Drain gru']")
    page.wait_for("#message", "gru was not changed: token guest lacks the scope operate.")
    page.click("#sign-out")
    page.fill("#token", town.admin.bearer("deployer", "deploy").token)
    page.press("Enter")
    page.wait_for("#sign-in-error", "token deployer lacks the scope read.")


def test_an_endpoint_is_created_and_its_handler_deployed_swapped_rolled_back_and_undeployed(town, visit, page):
    visit.sign_in(town.admin)
    page.wait_for("#no-endpoints", "No endpoint yet.")
    page.click("#new-endpoint summary")
    page.fill("#create [name=id]", "hello")
    page.fill("#create [name=path]", "/hello")
    page.click("#create button")
    page.wait_for("#deploy-title", "hello")
    page.wait_for("#no-versions", "No version yet")
    assert town.response("/hello")[0] == 503
    deploy(page, says("one"), "Version 1 is serving.")
    assert town.response("/hello") == (200, "one")
    deploy(page, says("two"), "Version 2 is serving.")
    assert town.response("/hello") == (200, "two")
    page.wait_for("#version-rows tr:nth-child(2)", "v1")
    page.wait_for("#version-rows tr:nth-child(1)", "serving")
    page.click("#roll-back")
    page.wait_for("#confirm-text", "Version 2 stops, and the version before it serves again.")
    assert page.focused == "confirm-no"
    page.click("#confirm-yes")
    page.wait_for("#outcome", "Rolled back. Version 1 is serving.")
    assert town.response("/hello") == (200, "one")
    page.wait_for("#version-rows tr:nth-child(2)", "serving")
    page.click("[aria-label='Deploy version 2']")
    page.wait_for("#outcome", "Version 2 is serving.")
    assert town.response("/hello") == (200, "two")
    page.wait_for("#endpoint-rows .pill", "v2")
    page.click("#undeploy")
    page.click("#confirm-yes")
    page.wait_for("#outcome", "Undeployed: no version is serving.")
    assert town.response("/hello")[0] == 503
    page.wait_for("#endpoint-rows .pill", "none")


def test_a_faulty_source_shows_its_traceback_and_the_old_version_serves(town, visit, page, hello):
    visit.expected = ["422"]
    deploy(page, says("one"), "Version 1 is serving.")
    deploy(page, BROKEN, "line 3: ValueError: invalid literal for int() with base 10: 'ten'")
    page.wait_for("#traceback", "PRICE = int('ten')")
    assert "Traceback (most recent call last)" in page.text("#traceback")
    assert town.response("/hello") == (200, "one")
    deploy(page, says("three"), "is serving.")
    assert page.text("#traceback") == ""
    assert town.response("/hello") == (200, "three")


def test_compiling_stores_a_version_without_deploying_it(town, page, hello):
    deploy(page, says("one"), "Version 1 is serving.")
    page.fill("#source", says("two"))
    page.click("#compile")
    page.wait_for("#outcome", "Version 2 compiles; it is not deployed.")
    assert town.response("/hello") == (200, "one")
    page.click("#deploy")
    page.wait_for("#outcome", "Version 2 is serving.")
    assert [one["number"] for one in town.admin.get("/api/endpoints/hello/versions")["items"]] == [1, 2]


def test_a_double_click_acts_once(town, page, hello):
    page.fill("#source", says("one"))
    page.evaluate("document.getElementById('deploy').click(); document.getElementById('deploy').click()")
    page.wait_for("#outcome", "Version 1 is serving.")
    page.wait_for("#version-rows", "serving")
    assert [one["number"] for one in town.admin.get("/api/endpoints/hello/versions")["items"]] == [1]


def test_a_response_for_an_endpoint_no_longer_in_the_box_names_it(town, page, hello):
    slow = "import time\ntime.sleep(1)\n" + says("slow")
    assert town.admin.call("POST", "/api/endpoints", {"id": "other", "path": "/other"}).status == 201
    page.wait_for("#endpoint-rows tr:nth-child(2)", "other")
    page.fill("#source", slow)
    page.click("#deploy")
    page.click("#endpoint-rows tr:nth-child(2) button")
    page.wait_for("#deploy-title", "other")
    page.wait_for("#message", "hello: Version 1 is serving.")
    assert page.text("#outcome") == ""
    assert town.response("/hello") == (200, "slow")
    assert town.response("/other")[0] == 503


def test_a_file_is_opened_and_a_stored_source_is_shown(town, page, hello, tmp_path):
    (tmp_path / "hello.py").write_text(says("from a file"))
    page.choose_file("#file", tmp_path / "hello.py")
    eventually(lambda: page.evaluate("document.getElementById('source').value") == says("from a file"))
    page.click("#deploy")
    page.wait_for("#outcome", "Version 1 is serving.")
    assert town.response("/hello") == (200, "from a file")
    page.fill("#source", "x")
    page.click("[aria-label='Show the source of version 1']")
    eventually(lambda: page.evaluate("document.getElementById('source').value") == says("from a file"))


@pytest.mark.parametrize("backend", ["gru", HOSTILE])
def test_a_backend_is_drained_and_undrained_by_its_button(town, visit, page, backend):
    visit.sign_in(town.admin)
    row = row_of(backend)
    page.wait_for(row, "healthy")
    page.click(f"{row} button")
    page.wait_for("#message", f"{backend} takes no new connections.")
    page.wait_for(f"{row} .pill", "draining")
    page.wait_for("#figures", "1 of 2")
    page.wait_for("#legend", "1 draining")
    served = {who(town.proxy, f"127.0.1.{number}", frontend="tcp") for number in range(20)}
    assert served == {"scl" if backend == "gru" else "gru"}
    page.click(f"{row} button")
    page.wait_for("#message", f"{backend} takes new connections again.")
    page.wait_for("#figures", "2 of 2")


def test_changes_appear_without_a_click(town, visit, page, tmp_path):
    visit.sign_in(town.admin)
    with town.proxy.connect("127.0.1.1", frontend="tcp") as sock:
        bound_to = ask(sock)
        row = row_of("gru" if bound_to == "gru" else HOSTILE)
        page.wait_for(f"{row} .of", "1 of 100")
        page.wait_for("#figures", "Open connections\n1")
    page.wait_for(f"{row} .of", "0 of 100")
    town.admin.call("POST", "/api/endpoints", {"id": "new", "path": "/new"})
    page.wait_for("#endpoint-rows", "new")
    database = {"engine": "sqlite", "path": str(tmp_path / "shop.db")}
    town.admin.call("POST", "/api/services", {"name": "main", "kind": "database", "settings": database})
    page.wait_for("#service-rows", "main")
    page.wait_for("#actor-rows", "registry")
    page.wait_for("#log-lines", "audit")
    assert "edgeproxy" in page.evaluate("document.title")
