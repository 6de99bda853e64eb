"""The page's document, and the API routes it needs: totals, health history, origins of clients, the current token."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re

import pytest

from app.wire import proxy_protocol
from tests.admin_client import Admin, admin_of, admin_variables
from tests.harness import eventually, frontend, row
from tests.traffic import ask, named, serving

BRAZILIAN, FRENCH, UNKNOWN = "200.160.2.3", "193.51.208.14", "10.1.2.3"
HELLO = "def handle(request, context):\n    return 'hello'\n"


@pytest.fixture
def town(edge, origin, tmp_path):
    """An edge that trusts its clients' PROXY headers, with a backend and a gateway."""
    trusting = {"proxy_protocol_from": ["127.0.0.0/8"]}
    config = {
        "frontends": [
            frontend("tcp", "cities", algorithm="geo", **trusting),
            frontend("web", "cities", protocol="http", gateway=True, **trusting),
        ],
        "backends": [{"name": "cities", "app": ""}],
    }

    class Town:
        proxy = edge(
            [row("gru", origin(named("gru")))], config=config, **{**admin_variables(tmp_path), "GEOIP_PATH": ""}
        )
        admin = admin_of(proxy, tmp_path)

        def connect(self, address, name="tcp"):
            sock = self.proxy.connect(frontend=name)
            sock.sendall(proxy_protocol.encode(1, (address, 4711), ("192.0.2.1", 443)))
            return sock

        def request(self, address, path):
            with self.connect(address, "web") as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n".encode())
                return sock.makefile("rb").read()

        def origins(self, seconds=60):
            found = self.admin.get(f"/api/clients?seconds={seconds}")
            keys = ("country", "region", "frontend", "backend", "endpoint")
            return {tuple(one[key] for key in keys): (one["open"], one["recent"]) for one in found["items"]}

    Town.proxy.wait_for_backends(1)
    return Town()


# The document


def test_the_page_needs_no_token_reveals_nothing_and_uses_no_other_host(town):
    response = Admin(town.admin.address, None).call("GET", "/")
    assert (response.status, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = response.body.decode()
    assert "gru" not in re.sub(r"\w*gru\w+|\w+gru\b", "", text)
    assert set(re.findall(r"https?://[\w.]+", text)) == {"http://www.w3.org"}  # the name of SVG
    assert not re.search(r"<(link|img|iframe|script)[^>]+(src|href)=[\"'](?!data:)", text)
    assert "[[" not in re.sub(r"\[\[(?=[\"'A-Za-z])", "", text.partition("<script")[0])


def test_its_policy_allows_only_its_own_script(town):
    response = Admin(town.admin.address, None).call("GET", "/")
    policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    text = response.body.decode()
    for kind, tag in (("style-src", "<style>"), ("script-src", '<script type="module">')):
        inline = text.partition(tag)[2].partition(f"</{tag[1:7].strip('> ')}")[0]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[kind] == f"'sha256-{digest}'"
    assert not re.search(r"\son\w+=|style=", text.partition("<script")[0])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"


def test_the_page_is_read_only(town):
    assert Admin(town.admin.address, None).call("HEAD", "/").body == b""
    assert town.admin.call("POST", "/").problem["status"] == 405
    assert Admin(town.admin.address, None).call("POST", "/").problem["status"] in (401, 405)
    connection = http.client.HTTPConnection(*town.admin.address, timeout=10)
    connection.request("GET", "/", headers={"Authorization": "Bearer nobody"})  # a stale header of a browser
    assert connection.getresponse().status == 200
    connection.close()


# The routes it uses


def test_totals_of_frontends_and_backends_grow_and_stay(town):
    with town.connect(BRAZILIAN) as sock:
        assert ask(sock) == "gru"

    def member():
        return town.admin.get("/api/pools/cities/backends")["items"][0]

    eventually(lambda: member()["bytes_sent_total"] == 4, what="the gru and its newline")
    one = member()
    assert (one["connections_total"], one["bytes_received_total"]) == (1, 4)
    assert (one["requests_total"], one["errors_total"], one["connections"]) == (0, 0, 0)
    town.admin.call("POST", "/api/endpoints", {"id": "hello", "path": "/hello"})
    assert town.admin.call("POST", "/api/endpoints/hello/deploy", {"source": HELLO}).status == 200
    responses = [town.request(BRAZILIAN, "/hello") for _ in range(3)]
    assert all(response.endswith(b"hello") for response in responses)

    def totals():
        fronts = town.admin.get("/api/frontends")["items"]
        return {front["name"]: (front["connections_total"], front["requests_total"]) for front in fronts}

    eventually(lambda: totals() == {"tcp": (1, 0), "web": (3, 3)}, what="the totals")
    everything = 4 + sum(len(response) for response in responses)
    eventually(lambda: town.admin.get("/api/frontends")["bytes_sent_total"] == everything)


def test_a_backend_has_a_health_history(edge, tmp_path):
    config = {
        "frontends": [frontend("tcp", "cities", algorithm="geo")],
        "backends": [{"name": "cities", "app": "", "health_check": {"type": "tcp", "interval": "0.1s"}}],
    }
    with serving(named("gru")) as port:
        proxy = edge([row("gru", port)], config=config, **admin_variables(tmp_path))
        admin = admin_of(proxy, tmp_path)

        def history():
            return admin.get("/api/pools/cities/backends")["items"][0]["history"]

        eventually(lambda: [change["state"] for change in history()][-1] == "up")
    eventually(lambda: [change["state"] for change in history()] == ["unknown", "up", "down"])
    ages = [change["seconds_ago"] for change in history()]
    assert sorted(ages, reverse=True) == ages
    assert ages[-1] == pytest.approx(admin.get("/api/pools/cities/backends")["items"][0]["seconds_in_state"], abs=1)


def test_clients_are_counted_by_country_and_backend(town):
    town.admin.call("POST", "/api/endpoints", {"id": "hello", "path": "/hello"})
    assert town.admin.call("POST", "/api/endpoints/hello/deploy", {"source": HELLO}).status == 200
    with town.connect(BRAZILIAN) as one, town.connect(BRAZILIAN) as two, town.connect(UNKNOWN) as three:
        assert {ask(sock) for sock in (one, two, three)} == {"gru"}
        assert town.origins() == {
            ("BR", "sa", "tcp", "gru", None): (2, 0),
            (None, None, "tcp", "gru", None): (1, 0),
        }
        town.request(FRENCH, "/hello")
        eventually(lambda: town.origins().get(("FR", "eu", "web", None, "hello")) == (0, 1))
    eventually(lambda: town.origins().get(("BR", "sa", "tcp", "gru", None)) == (0, 2))
    eventually(lambda: not town.origins(seconds=1), what="what is over is not recent for ever")
    assert town.admin.get("/api/clients?seconds=60")["covers_seconds"] == 60
    assert town.admin.call("GET", "/api/clients?seconds=0").problem["status"] == 422


def test_a_busy_log_reports_the_period_it_covers(town):
    for _ in range(2100):
        with town.connect(UNKNOWN) as sock:
            ask(sock)
    found = eventually(lambda: (one := town.admin.get("/api/clients?seconds=3600"))["covers_seconds"] < 3600 and one)
    assert 0 < found["covers_seconds"] < 120
    (origin,) = found["items"]
    assert 1900 < origin["recent"] <= 2000


def test_a_token_can_read_its_name_and_scopes(town):
    own = town.admin.bearer("guest", "read").get("/api/token")
    assert (own["name"], own["scopes"]) == ("guest", ["read"])
    assert "token" not in own


def test_the_status_has_the_region_of_the_edge(town):
    assert town.admin.get("/api/status")["region"] == "sa"
