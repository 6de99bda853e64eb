"""What a proxy owes to both sides: Date, Via, Max-Forwards, TE, and which headers of strangers it believes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from email.utils import parsedate_to_datetime

import pytest

from app.domain.endpoints import Endpoint
from app.outbound.peewee_gateway import SqliteGatewayStore
from tests.harness import pool
from tests.integration.http_peers import Origin, client_of, head, http_edge, live

HANDLER = """
def handle(request, context):
    return request.environ["SERVER_NAME"] + ":" + request.environ["SERVER_PORT"], 200, {"X-Request": context.request_id}
"""
OWN_DATE = "Thu, 01 Jan 1970 00:00:00 GMT"
DATED = f"""
def handle(request, context):
    return "", 200, {{"Date": "{OWN_DATE}", "X-Request-Id": "mine"}}
"""
NAMED = """
def handle(request, context):
    names = (name for name in request.environ if name.startswith("HTTP_"))
    return " ".join(sorted(name if name != "HTTP_X_AUTH" else name + "=" + request.environ[name] for name in names))
"""
TRUSTED = "127.0.8.1"


@pytest.fixture(scope="module")
def origin():
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, origin):
    folder = tmp_path_factory.mktemp("duties")
    store = SqliteGatewayStore(folder / "gateway.db")
    for name, source in (("handler", HANDLER), ("dated", DATED), ("named", NAMED)):
        assert store.create_endpoint(Endpoint(name, name, f"/{name}"))
        assert store.set_deployed(name, store.add_version(name, source).number, time.time())
    store.close()
    with ExitStack() as stack:
        config = {
            "frontends": [
                live("web", "web", gateway=True, http={"trusted_proxies": [f"{TRUSTED}/32"]}),
                live("named", "web", http={"via": "pop-1"}),
                live("silent", "web", http={"via": "", "underscore_headers": True, "untrusted_headers": ["X-Who"]}),
                live(
                    "changed",
                    "web",
                    gateway=True,
                    http={
                        "request_headers": {"remove": ["X-Admin"], "set": {"X-Auth": "edge"}},
                        "underscore_headers": True,
                    },
                ),
                live("one-each", "web", limits={"max_connections_per_client": 1}),
            ],
            "backends": [pool("web", origin.port)],
        }
        yield stack.enter_context(http_edge(folder, config, GATEWAY_DB_PATH=folder / "gateway.db"))


def arrived(proxy, origin, *lines, frontend="web", source="", method="GET", target="/"):
    """Return the headers that the origin gets of such a request."""
    with client_of(proxy, source, frontend=frontend) as client:
        assert client.ask(target, *lines, method=method).status == 200
    return origin.requests[-1].headers


def is_now(text):
    return abs(parsedate_to_datetime(text).timestamp() - time.time()) < 5


def test_responses_of_the_edge_and_of_handlers_have_a_date(proxy):
    with client_of(proxy) as client:
        answered = client.ask("/handler")
        assert is_now(answered.headers["date"])
        assert answered.headers["x-request-id"] == answered.headers["x-request"]
        own = client.ask("/dated")
        assert (own.headers["date"], own.headers["x-request-id"]) == (OWN_DATE, "mine")
        assert is_now(client.ask("/dated", method="POST").headers["date"]), "405"


def test_via_names_the_edge_both_ways(proxy, origin):
    with client_of(proxy, frontend="named") as client:
        assert client.ask("/", "Via: 1.0 before").headers["via"] == "1.1 pop-1"
        assert origin.requests[-1].headers["via"] == "1.1 pop-1", "the last one"
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.read().status == 200
        assert origin.requests[-1].headers["via"] == "1.0 pop-1"
    assert "via" not in arrived(proxy, origin, frontend="silent")


def test_max_forwards_ends_at_the_edge_or_counts_down(proxy, origin):
    before = len(origin.requests)
    with client_of(proxy) as client:
        assert client.ask("/", "Max-Forwards: 0", method="OPTIONS").status == 200
        assert client.ask("/", "Max-Forwards: 0", method="TRACE").status == 405
    assert len(origin.requests) == before
    assert arrived(proxy, origin, "Max-Forwards: 3", method="OPTIONS")["max-forwards"] == "2"
    assert arrived(proxy, origin, "Max-Forwards: 0")["max-forwards"] == "0", "it is for TRACE and OPTIONS"


def test_a_body_of_what_ends_at_the_edge_is_not_the_next_request(proxy):
    with client_of(proxy) as client:
        smuggled = head("GET /smuggled HTTP/1.1", "Host: x")
        lines = ("Host: x", "Max-Forwards: 0", f"Content-Length: {len(smuggled)}")
        client.send(head("OPTIONS / HTTP/1.1", *lines) + smuggled)
        assert client.read().headers["connection"] == "close"
        assert client.has_ended()


def test_a_client_that_takes_trailers_is_announced(proxy, origin):
    headers = arrived(proxy, origin, "TE: trailers, deflate", "Connection: TE")
    assert (headers["te"], headers["connection"]) == ("trailers", "TE")
    assert "te" not in arrived(proxy, origin, "TE: deflate", "Connection: TE")
    assert "te" not in arrived(proxy, origin, "TE: trailers"), "not for the next hop"


def test_a_handler_gets_what_strangers_say_of_the_client_no_more_than_a_backend(proxy):
    lines = ("X-Real-IP: 6.6.6.6", "X_Real_IP: 6.6.6.6", "X-Forwarded-For: 6.6.6.6", "X-Own: 1")
    with client_of(proxy) as stranger, client_of(proxy, TRUSTED) as trusted:
        assert stranger.ask("/named", *lines).body == b"HTTP_HOST HTTP_X_OWN"
        assert trusted.ask("/named", *lines).body == b"HTTP_HOST HTTP_X_FORWARDED_FOR HTTP_X_OWN HTTP_X_REAL_IP"


def test_a_handler_gets_the_headers_that_a_backend_gets(proxy):
    lines = ("X-Admin: 1", "X-Auth: mine", "TE: trailers", "X-Hop: 1", "Connection: X-Hop, close", "X-Own: 1")
    with client_of(proxy, frontend="changed") as client:
        assert client.ask("/named", *lines).body == b"HTTP_HOST HTTP_X_AUTH=edge HTTP_X_OWN"


def test_what_strangers_say_of_the_client_is_not_passed_on(proxy, origin):
    lines = ("X-Real-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "X-Forwarded-Port: 1", "X-Own: 1")
    assert not {"x-real-ip", "true-client-ip", "x-forwarded-port"} & set(arrived(proxy, origin, *lines))
    assert arrived(proxy, origin, *lines, source=TRUSTED)["x-real-ip"] == "6.6.6.6"
    kept = arrived(proxy, origin, *lines, "X-Who: me", frontend="silent")
    assert (kept["x-real-ip"], "x-who" in kept) == ("6.6.6.6", False)


def test_headers_with_underscores_are_dropped_unless_configured(proxy, origin):
    assert "x_own" not in arrived(proxy, origin, "X_Own: 5")
    assert arrived(proxy, origin, "X_Own: 5", frontend="silent")["x_own"] == "5"


def test_underscores_are_no_other_name_for_what_is_removed(proxy, origin):
    lines = ("X_Real_IP: 1", "X_Admin: 1", "X_Auth: mine", "Content_Length: 5", "Transfer_Encoding: x", "X_Own: 1")
    headers = arrived(proxy, origin, *lines, frontend="changed")
    assert {name for name in headers if "_" in name} == {"x_own"}
    assert headers["x-auth"] == "edge"


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_For", "x_request_id", "X_Forwarded_Proto"])
def test_a_forwarding_field_spelt_with_underscores_is_dropped_even_so(proxy, origin, name):
    assert name.lower() not in arrived(proxy, origin, f"{name}: 6.6.6.6", frontend="silent")


def test_a_client_over_its_own_limit_is_told_and_can_read_it(proxy):
    with client_of(proxy, "127.0.8.9", frontend="one-each") as first:
        assert first.ask().status == 200
        for _ in range(5):
            with client_of(proxy, "127.0.8.9", frontend="one-each") as second:
                response = second.ask()
                assert (response.status, response.headers["retry-after"]) == (429, "1")
                assert second.has_ended(), "no reset destroys the response"


def test_a_handler_knows_the_address_that_an_http_1_0_client_came_to(proxy):
    with client_of(proxy) as client:
        client.send(b"GET /handler HTTP/1.0\r\n\r\n")
        host, port = proxy.frontends["web"][0]
        assert client.read().body.decode() == f"{host}:{port}"
