"""States of the web page: an empty edge, an edge that is gone, hostile text, keyboard use, narrow windows."""

from __future__ import annotations

import signal

import pytest

from tests.admin_client import admin_of, admin_variables
from tests.e2e.conftest import HOSTILE
from tests.harness import eventually, frontend, pool
from tests.traffic import who

MARKUP = "</pre><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
SHOUTING = f"""def handle(request, context):
    context.logger.warning({MARKUP!r})
    raise ValueError({MARKUP!r})
"""
UNREACHABLE = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
STOPS = """(() => {
    const one = document.activeElement, shown = one.type === "file" ? one.parentElement : one;
    return [one.localName, getComputedStyle(shown).outlineStyle];
})()"""


@pytest.fixture
def page(visit):
    return visit.page


# An empty edge


def test_an_edge_with_endpoints_only_shows_notes_for_empty_lists(edge, visit, page, tmp_path):
    config = {"frontends": [{"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True}]}
    visit.sign_in(admin_of(edge(config=config, **admin_variables(tmp_path)), tmp_path))
    page.wait_for("#no-pools", "This edge has no pool: it serves endpoints only.")
    page.wait_for("#no-endpoints", "No endpoint yet.")
    page.wait_for("#no-services", "No service")
    assert page.text("#pools") == page.text("#legend") == ""
    assert "This edge has no backends." in page.texts("#map-summary")[0]
    assert "No recent client has a known location." in page.texts("#map-summary")[0]


def test_a_pool_without_backends_shows_how_to_add_one(edge, visit, page, tmp_path):
    config = {"frontends": [frontend("tcp", "cities", algorithm="geo")], "backends": [{"name": "cities", "app": ""}]}
    visit.sign_in(admin_of(edge([], config=config, **admin_variables(tmp_path)), tmp_path))
    page.wait_for(".pool .empty", "No backend in the routing database yet")
    page.wait_for("#figures", "0 of 0")
    assert page.text("#readiness") != "ready"


def test_the_first_of_many_pools_are_shown_and_all_are_counted(edge, visit, page, tmp_path):
    config = {
        "frontends": [frontend(f"f{number}", f"p{number}") for number in range(50)],
        "backends": [pool(f"p{number}", 1, 2) for number in range(50)],
    }
    visit.sign_in(admin_of(edge(config=config, **admin_variables(tmp_path)), tmp_path))
    page.wait_for("#more-pools", "The first 20 of 50 pools are shown")
    assert len(page.texts(".pool")) == 20
    page.wait_for("#figures", "100 of 100")


# An edge that is gone


def test_an_edge_that_is_gone_is_reported_with_the_age_of_the_data_until_it_is_back(town, visit, page):
    visit.sign_in(town.admin)
    visit.expected = UNREACHABLE
    town.proxy.kill()
    page.wait_for("#alert", "The edge does not respond. The data shown is from ")
    page.wait_for("#age", " s old")
    assert page.text("#readiness") == "no response"
    assert page.evaluate("document.title") == "edgeproxy · no response"
    assert page.evaluate("document.documentElement.dataset.state") == "stale"
    assert "gru" in page.text("#pools")
    before = page.text("#age")
    eventually(lambda: page.text("#age") != before, what="it grows older")
    page.click("[aria-label='Drain gru']")
    page.wait_for("#message", "gru was not changed: The edge does not respond.")
    town.start(ADMIN_LISTEN_ADDR="{}:{}".format(*town.admin.address))
    page.wait_for("#age", "live")
    assert page.text("#alert") == ""
    assert page.text("#readiness") == "ready"


def test_an_edge_that_never_responded_shows_no_figures(town, visit, page):
    visit.open(town.admin)
    visit.expected = UNREACHABLE
    town.proxy.kill()
    page.fill("#token", town.admin.token)
    page.press("Enter")
    page.wait_for("#alert", "The edge does not respond. Retrying.")
    assert page.text("#figures") == page.text("#age") == ""


def test_a_stopped_edge_is_not_shown_as_live(town, visit, page):
    visit.sign_in(town.admin)
    town.proxy.process.send_signal(signal.SIGSTOP)
    page.wait_for("#age", " s old")
    town.proxy.process.send_signal(signal.SIGCONT)
    page.wait_for("#age", "live")


# Hostile text


def test_names_of_backends_and_text_of_handlers_and_the_log_are_never_markup(town, visit, page):
    visit.expected = ["422"]
    admin = town.admin
    assert admin.call("POST", "/api/endpoints", {"id": "hello", "name": MARKUP, "path": "/hello"}).status == 201
    assert admin.call("POST", "/api/endpoints/hello/deploy", {"source": SHOUTING}).status == 200
    assert town.response("/hello")[0] == 500
    who(town.proxy, frontend="tcp")
    visit.sign_in(admin)
    page.wait_for("#log-lines", MARKUP)
    page.wait_for("#log-lines pre", MARKUP)
    page.click("#with-access")
    page.wait_for("#log-lines", "access")
    assert page.text("#endpoint-rows small") == MARKUP
    assert HOSTILE in page.texts("#pools td.name b")
    assert any(HOSTILE in text for text in page.texts("#map title"))
    page.click("#endpoint-rows button")
    page.wait_for("#version-rows tr")
    page.fill("#source", f"raise ValueError({MARKUP!r})")
    page.click("#deploy")
    page.wait_for("#traceback", MARKUP)
    assert page.evaluate("document.querySelectorAll('main :is(img, script)').length") == 0
    assert "owned" not in page.evaluate("document.title")


# Keyboard and screen reader


def tab_to(page, name):
    """Press Tab until an element has the focus; every stop on the way must have a name and a visible focus."""
    for _ in range(80):
        page.press("Tab")
        kind, outline = page.evaluate(STOPS)
        if kind != "body":
            assert page.focused, f"a {kind} without a name"
            assert outline != "none", f"the focus on {page.focused} is not seen"
        if page.focused == name:
            return
    pytest.fail(f"the keyboard does not reach {name}")


def test_it_works_by_keyboard_alone(town, visit, page):
    visit.open(town.admin)
    page.type(town.admin.token)
    page.press("Enter")
    page.wait_for("#age", "live")
    assert page.focused == "main"
    tab_to(page, "Drain gru")
    page.press("Enter")
    page.wait_for("[aria-label='Undrain gru']")
    assert page.focused == "Undrain gru"
    page.press(" ")
    page.wait_for("[aria-label='Drain gru']")
    tab_to(page, "New endpoint")
    page.press("Enter")
    for text in ("hello", "/hello"):
        page.press("Tab")
        page.type(text)
    page.press("Enter")
    page.wait_for("#no-versions", "No version yet")
    assert page.focused == "deploy-title"
    tab_to(page, "source")
    tab_to(page, "deploy")
    page.press("Enter")
    page.wait_for("#outcome", "Version 1 is serving.")
    assert town.response("/hello") == (200, '{"hello":"world"}')
    assert page.focused == "deploy"
    tab_to(page, "undeploy")
    page.press("Enter")
    tab_to(page, "confirm-yes")
    page.press("Enter")
    page.wait_for("#outcome", "Undeployed: no version is serving.")
    tab_to(page, "with-access")
    page.press("Tab")
    assert page.evaluate("document.activeElement.className") == "lines"


def test_everything_has_an_accessible_name(town, visit, page):
    """Checks the accessibility tree, which screen readers use."""
    town.admin.call("POST", "/api/endpoints", {"id": "hello", "path": "/hello"})
    visit.sign_in(town.admin)
    page.click("#endpoint-rows button")
    page.wait_for("#no-versions")
    tree = page.command("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "link", "textbox", "checkbox", "table", "image", "region", "columnheader", "navigation"}
    nameless = [
        node
        for node in tree
        if not node["ignored"] and node["role"]["value"] in named and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    names = {node["name"]["value"] for node in tree if not node["ignored"] and node.get("name", {}).get("value")}
    assert {"Backends of pool cities", "Drain gru", "Sections"} <= names
    assert any(name.startswith("World map. ") for name in names)
    assert any(name.startswith("Health: ") for name in names)


# Narrow windows, dark colours


def test_nothing_is_wider_than_the_window(town, visit, page):
    town.admin.call("POST", "/api/endpoints", {"id": "h" * 60, "path": "/" + "p" * 80})
    visit.sign_in(town.admin)
    page.click("#endpoint-rows button")
    page.wait_for("#source")
    page.wait_for("#actor-rows", "registry")
    for width in (320, 390, 768, 1080, 1081, 1360):
        page.resize(width, 844, 2)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(
            f"[...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > {width} + 1"
            " && !one.closest('.unseen, svg, .lines')).map((one) => one.outerHTML.slice(0, 90))"
        )
        assert (width, wide) == (width, [])


def test_it_follows_the_preferred_colour_scheme(town, visit, page):
    visit.sign_in(town.admin)
    colours = {}
    for scheme in ("light", "dark"):
        page.prefer(prefers_color_scheme=scheme)
        colours[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.prefer(prefers_color_scheme="light")
    assert colours == {"light": "rgb(245, 244, 240)", "dark": "rgb(13, 17, 22)"}


def test_nothing_moves_with_reduced_motion(town, visit, page):
    visit.sign_in(town.admin)
    running = "document.getAnimations().filter((one) => one.playState === 'running').length"
    page.prefer(prefers_reduced_motion="reduce")
    assert page.evaluate(running) == 0
    page.prefer(prefers_reduced_motion="no-preference")
