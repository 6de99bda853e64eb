"""What changes in the heads of requests and answers on their way, what does not, and who is told about whom."""

import re
import socket
import time
from contextlib import ExitStack
from email.utils import parsedate_to_datetime

import pytest

from tests.harness import eventually, frontend, pool
from tests.integration.http_origin import Origin, client_of, fresh_path, get, post, response, start_edge, then_end
from tests.integration.peers import await_acknowledged

PROXY, STRANGER = "127.20.0.1", "127.21.0.1"
"""Where clients come from: a trusted proxy and somebody else."""
FORWARDING = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]


class Scene:
    """Frontends of every kind before one origin."""

    def __init__(self, folder, stack):
        self.origin = Origin()
        stack.callback(self.origin.close)

        def web(name, **options):
            return frontend(name, "web", protocol="http", **options)

        trusting = {"trusted_proxies": ["127.20.0.0/16", "::1", "198.51.100.0/24", "2001:db8:1::/48"]}
        config = {
            "frontends": [
                web("web") | {"listen": ["127.0.0.1:0", "[::1]:0"]},
                web("trusting", http=trusting) | {"listen": ["127.0.0.1:0", "[::1]:0"]},
                web("behind", http=trusting, proxy_protocol_from=["127.0.0.0/8"]),
                web(
                    "changing",
                    http={
                        "request_headers": {"set": {"X-Set": "by the edge", "Accept": "*/*"}, "remove": ["X-Secret"]},
                        "response_headers": {
                            "set": {"Server": "edge", "X-New": ""},
                            "remove": ["X-Powered-By", "Date"],
                        },
                    },
                ),
                web(
                    "naming",
                    http={
                        "request_headers": {
                            "set": {"X-Forwarded-Proto": "https", "X-Request-Id": "fixed"},
                            "remove": ["Forwarded", "x-forwarded-host"],
                        }
                    },
                ),
                web("nameless", http={"request_headers": {"remove": ["X-Request-Id"]}}),
                web("small", http={"max_head_bytes": 1024}),
            ],
            "backends": [pool("web", self.origin.port)],
        }
        self.edge = start_edge(folder, config)
        stack.callback(self.edge.kill)

    def client(self, frontend="web", source=""):
        return client_of(self.edge, frontend, source)

    def arrived(self, *lines, frontend="web", source=STRANGER, before=b""):
        """Send a request with these header lines; returns it as the origin got it."""
        path = fresh_path()
        with self.client(frontend, source) as client:
            assert client.ask(before + get(path, *lines)).status == 200
        return self.origin.one(path)

    def came_back(self, *lines, frontend="web", status="200 OK"):
        """Let the origin answer with these header lines; returns the answer as the client got it."""
        path = self.origin.on(response(b"body", *lines, status=status))
        with self.client(frontend) as client:
            return client.ask(get(path))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("heads"), stack)


# What passes and what does not

HOP_BY_HOP = [
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Upgrade: h2c",
    "Connection: X-Mine, keep-alive",
    "X-Mine: a",
    "connection: x-YOURS",
    "X-Yours: b",
]


def test_end_to_end_headers_arrive_as_they_were_and_in_their_order(scene):
    lines = ["x-b: 1", "X-A: 2", "Cookie: a=b; c=d", "X-b:  with  spaces ", "Accept: */*", "x-empty:", "Trailer: x"]
    request = scene.arrived(*lines)
    sent = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    assert request.headers[: len(lines) + 1] == [("host", "shop"), *sent]
    assert b"\r\nx-b: 1\r\nX-A: 2\r\n" in request.head, "names keep their case"


def test_what_speaks_to_the_edge_alone_is_not_passed_on_to_the_backend(scene):
    request = scene.arrived(*HOP_BY_HOP, "X-Kept: c")
    assert [name for name, _ in request.headers] == ["host", "x-kept", *FORWARDING, "x-request-id", "via"]


def test_what_speaks_to_the_edge_alone_is_not_passed_on_to_the_client(scene):
    message = scene.came_back(*[line for line in HOP_BY_HOP if not line.startswith("Upgrade")], "X-Kept: c")
    names = [name for name, _ in message.headers]
    assert names == ["content-length", "x-kept", "date", "via"]
    assert (message["x-kept"], message["via"]) == ("c", "1.1 edgeproxy")


def test_connection_cannot_take_away_what_frames_or_routes_a_message(scene):
    path = fresh_path()
    with scene.client() as client:
        client.send(post(path, b"hello", "Connection: Content-Length, Host, Transfer-Encoding, X-Forwarded-For"))
        assert client.response().status == 200
    request = scene.origin.one(path)
    assert (request["host"], request.body) == ("shop", b"hello")
    assert request["x-forwarded-for"] == "127.0.0.1"


def test_an_answer_keeps_its_status_reason_and_repeated_headers(scene):
    message = scene.came_back("Set-Cookie: a=1", "Set-Cookie: b=2", status="299 Quite All Right")
    assert message.line == "HTTP/1.1 299 Quite All Right"
    assert message.all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("status", ["404 ", "200", "599 \xe9", "226 IM Used"])
def test_odd_reasons_pass(scene, status):
    message = scene.came_back(status=status)
    assert message.line.rstrip() == f"HTTP/1.1 {status}".rstrip()


# Forwarding headers


def test_a_strangers_forwarding_headers_are_replaced(scene):
    lies = [
        "X-Forwarded-For: 10.0.0.1",
        "x-forwarded-for: 10.0.0.2",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: bank",
        "Forwarded: for=10.0.0.1;proto=https",
        "X-Request-Id: mine",
    ]
    for name in ("web", "trusting"):
        request = scene.arrived(*lies, frontend=name)
        assert request["x-forwarded-for"] == STRANGER
        assert request["x-forwarded-proto"] == "http"
        assert request["x-forwarded-host"] == "shop"
        assert request["forwarded"] == f'for={STRANGER};proto=http;host="shop"'
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", request["x-request-id"] or "")


def test_a_trusted_proxys_forwarding_headers_are_extended(scene):
    truths = [
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: www.shop",
        "Forwarded: for=203.0.113.7;proto=https",
        "X-Request-Id: theirs",
    ]
    request = scene.arrived(*truths, frontend="trusting", source=PROXY)
    assert request["x-forwarded-for"] == f"203.0.113.7, {PROXY}"
    assert request["x-forwarded-proto"] == "https"
    assert request["x-forwarded-host"] == "www.shop"
    assert request["forwarded"] == f'for=203.0.113.7;proto=https, for={PROXY};proto=http;host="shop"'
    assert request["x-request-id"] == "theirs"


def test_a_trusted_proxys_repeated_forwarding_headers_become_one_list(scene):
    lines = ["X-Forwarded-For: 203.0.113.7", "Forwarded: for=a", "X-Forwarded-For: 203.0.113.8", "Forwarded: for=b"]
    request = scene.arrived(*lines, frontend="trusting", source=PROXY)
    assert request["x-forwarded-for"] == f"203.0.113.7, 203.0.113.8, {PROXY}"
    assert request["forwarded"] == f'for=a, for=b, for={PROXY};proto=http;host="shop"'


def test_a_trusted_proxy_that_says_nothing_is_told_of_like_anyone(scene):
    request = scene.arrived(frontend="trusting", source=PROXY)
    assert request["x-forwarded-for"] == PROXY
    assert request["forwarded"] == f'for={PROXY};proto=http;host="shop"'
    assert request["x-request-id"]


@pytest.mark.parametrize("frontend, kept", [("web", ""), ("trusting", "203.0.113.7, ")])
def test_an_ipv6_client_is_named_with_brackets_in_forwarded_alone(scene, frontend, kept):
    path = fresh_path()
    with socket.create_connection(scene.edge.frontends[frontend][1], 10) as sock:
        sock.sendall(get(path, "X-Forwarded-For: 203.0.113.7", "Connection: close"))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    request = scene.origin.one(path)
    assert request["x-forwarded-for"] == f"{kept}::1"
    assert request["forwarded"] == 'for="[::1]";proto=http;host="shop"'


@pytest.mark.parametrize(
    "header, address, is_trusted",
    [
        (b"PROXY TCP4 198.51.100.1 192.0.2.99 4711 80\r\n", "198.51.100.1", True),
        (b"PROXY TCP4 192.0.2.1 192.0.2.99 4711 80\r\n", "192.0.2.1", False),
        (b"PROXY TCP6 2001:db8:1::5 2001:db8::99 4711 80\r\n", "2001:db8:1::5", True),
        (b"PROXY TCP6 2001:db8:2::5 2001:db8::99 4711 80\r\n", "2001:db8:2::5", False),
        (b"PROXY TCP6 ::ffff:198.51.100.2 ::ffff:192.0.2.99 4711 80\r\n", "198.51.100.2", True),
        (b"PROXY UNKNOWN\r\n", PROXY, True),
    ],
)
def test_the_client_that_a_proxy_header_names_is_told_of_and_trusted_or_not(scene, header, address, is_trusted):
    request = scene.arrived("X-Forwarded-For: 10.0.0.1", frontend="behind", source=PROXY, before=header)
    assert request["x-forwarded-for"] == (f"10.0.0.1, {address}" if is_trusted else address)
    node = f'"[{address}]"' if ":" in address else address
    assert request["forwarded"] == f'for={node};proto=http;host="shop"'


def test_every_request_has_an_id_of_its_own(scene):
    paths = [fresh_path() for _ in range(20)]
    with scene.client() as client, scene.client() as other:
        for path in paths:
            client.ask(get(path))
            other.ask(get(path))
    assert len({request["x-request-id"] for path in paths for request in scene.origin.got(path)}) == 40


def test_a_connections_requests_to_different_hosts_are_each_told_of_by_their_own(scene):
    hosts, paths = ["a", "b:81", "a", "[::1]:8080"], [fresh_path() for _ in range(4)]
    with scene.client() as client:
        for host, path in zip(hosts, paths, strict=True):
            client.ask(get(path).replace(b"Host: shop", b"Host: " + host.encode()))
    arrived = [scene.origin.one(path) for path in paths]
    assert [request["x-forwarded-host"] for request in arrived] == hosts
    assert [(request["forwarded"] or "").partition("host=")[2] for request in arrived] == [f'"{h}"' for h in hosts]


@pytest.mark.parametrize("request_id", ["", "caf\xe9", "\xff", "two words", "a" * 2000])
def test_a_trusted_proxys_request_id_that_is_not_fit_for_a_log_is_replaced(scene, request_id):
    path = fresh_path()
    with scene.client("trusting", PROXY) as client:
        assert client.ask(get(path, f"X-Request-Id: {request_id}")).status == 200
        assert client.ask(get(path, "X-Request-Id: again")).status == 200, "the connection goes on"
    first, second = scene.origin.got(path)
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", first["x-request-id"] or "")
    assert second["x-request-id"] == "again"


# Changes by configuration


def test_configured_request_headers_are_set_and_removed(scene):
    request = scene.arrived("accept: text/html", "x-set: by the client", "x-secret: a", frontend="changing")
    assert (request["x-set"], request["accept"], request["x-secret"]) == ("by the edge", "*/*", None)


def test_configured_response_headers_are_set_and_removed(scene):
    message = scene.came_back("server: origin", "x-powered-by: php", "X-Kept: a", frontend="changing")
    assert (message["server"], message["x-new"], message["x-powered-by"]) == ("edge", "", None)
    assert message["x-kept"] == "a"


def test_a_response_without_a_date_gets_one_and_others_keep_theirs(scene):
    given = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert parsedate_to_datetime(scene.came_back()["date"]).timestamp() == pytest.approx(time.time(), abs=5)
    message = scene.came_back(f"DATE: {given}")
    assert [value for name, value in message.headers if name == "date"] == [given]
    assert scene.came_back(frontend="changing")["date"] is None, "its configuration removes it"


def test_configured_changes_go_before_what_the_edge_tells_of_a_client(scene):
    request = scene.arrived("Forwarded: for=me", "X-Forwarded-Host: bank", frontend="naming")
    assert (request["x-forwarded-proto"], request["forwarded"], request["x-forwarded-host"]) == ("https", None, None)
    assert request["x-forwarded-for"] == STRANGER


@pytest.mark.parametrize("frontend, ids", [("naming", ["fixed"]), ("nameless", [])])
def test_a_configured_request_id_is_the_only_one(scene, frontend, ids):
    assert scene.arrived("X-Request-Id: mine", frontend=frontend).all("x-request-id") == ids


# Methods, statuses and forms of targets


@pytest.mark.parametrize(
    "method, status, lines",
    [
        ("HEAD", "200 OK", ["Content-Length: 5"]),
        ("HEAD", "200 OK", ["Transfer-Encoding: chunked"]),
        ("HEAD", "200 OK", []),
        ("HEAD", "404 Not Found", ["Content-Length: 99999999"]),
        ("GET", "204 No Content", []),
        ("GET", "304 Not Modified", ["Content-Length: 5", 'ETag: "a"']),
        ("GET", "304 Not Modified", []),
    ],
)
def test_an_answer_that_has_no_body_is_over_with_its_head(scene, method, status, lines):
    path = scene.origin.on("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())
    then = fresh_path()
    with scene.client() as client:
        message = client.ask(get(path, method=method), has_body=False)
        assert message.line == f"HTTP/1.1 {status}"
        added = ("transfer-encoding", "date", "via")
        assert [f"{name}: {value}" for name, value in message.headers if name not in added] == [
            line.replace("Content-Length", "content-length").replace("ETag", "etag")
            for line in lines
            if "Tr" not in line
        ]
        assert client.ask(get(then)).body == then.encode(), "the next answer on the connection"
    first, second = scene.origin.one(path), scene.origin.one(then)
    assert second.visit == first.visit, "the connection to the backend is kept"


@pytest.mark.parametrize("upgrades", [["h2c"], ["h2c,"], ["H2C, x"], ["x", "h2c"]])
def test_nobody_changes_to_http_2_in_the_clear_past_us(scene, upgrades):
    lines = [f"Upgrade: {upgrade}" for upgrade in upgrades]
    request = scene.arrived("Connection: Upgrade, HTTP2-Settings", *lines, "HTTP2-Settings: AAMA")
    assert [name for name, _ in request.headers] == ["host", *FORWARDING, "x-request-id", "via"]


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_For", "x_request_id", "X_Forwarded_Proto"])
def test_a_forwarding_header_spelt_with_underscores_is_not_passed_on(scene, name):
    request = scene.arrived(f"{name}: 6.6.6.6", frontend="trusting", source=PROXY)
    assert name.lower() not in [received for received, _ in request.headers]


@pytest.mark.parametrize("length", ["0", "5"])
def test_a_204_goes_on_without_content_length(scene, length):
    """RFC 9110, section 8.6: there must be none, and not every client knows to ignore it."""
    path, then = scene.origin.on(f"HTTP/1.1 204 No Content\r\nContent-Length: {length}\r\n\r\n".encode()), fresh_path()
    with scene.client() as client:
        message = client.ask(get(path), has_body=False)
        assert client.ask(get(then)).body == then.encode()
    assert message.all("content-length") == []


def test_options_for_the_whole_server_passes(scene):
    before = len(scene.origin.got("*"))
    with scene.client() as client:
        assert client.ask(get("*", method="OPTIONS")).status == 200
    assert [request.line for request in scene.origin.got("*")[before:]] == ["OPTIONS * HTTP/1.1"]


def test_an_absolute_target_arrives_in_origin_form_with_its_own_host(scene):
    path = fresh_path()
    with scene.client() as client:
        assert client.ask(get(f"http://elsewhere:81{path}?a=b", "X: y")).status == 200
    request = scene.origin.one(f"{path}?a=b")
    assert request.line == f"GET {path}?a=b HTTP/1.1"
    assert (request["host"], request["x-forwarded-host"]) == ("elsewhere:81", "elsewhere:81")


# HTTP/1.0


def test_an_http_1_0_client_gets_its_answer_and_the_end(scene):
    path = fresh_path()
    with scene.client() as client:
        message = client.ask(get(path, version="1.0"))
        assert (message.body, message["connection"]) == (path.encode(), "close")
        assert client.rest() == b""
    assert scene.origin.one(path).line == f"GET {path} HTTP/1.1"


def test_an_http_1_0_client_that_asks_to_keep_its_connection_keeps_it(scene):
    paths = [fresh_path(), fresh_path()]
    with scene.client() as client:
        for path in paths:
            message = client.ask(get(path, "Connection: keep-alive", version="1.0"))
            assert (message.body, message["connection"]) == (path.encode(), "keep-alive")
        client.ask(get(fresh_path(), version="1.0"))
        assert client.rest() == b""


@pytest.mark.parametrize("lines", [[], ["Connection: keep-alive"]])
def test_an_http_1_0_client_gets_a_chunked_answer_without_its_chunks(scene, lines):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    path = scene.origin.on(head + b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n")
    with scene.client() as client:
        client.send(get(path, *lines, version="1.0"))
        message = client.head()
        assert (message["transfer-encoding"], message["connection"]) == (None, "close")
        assert client.rest() == b"hello world"


def test_an_http_1_0_request_without_host_goes_on_with_the_edges_address(scene):
    """RFC 9112, section 3.2: every request in HTTP/1.1 has the header."""
    path = fresh_path()
    with scene.client() as client:
        client.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert client.response().status == 200
    request = scene.origin.one(path)
    assert request["host"] == "{}:{}".format(*scene.edge.frontends["web"][0])
    assert request["x-forwarded-host"] is None, "nobody asked for one"


def test_connection_close_of_the_client_is_kept_to_and_the_backends_connection_stays(scene):
    path, then = fresh_path(), fresh_path()
    with scene.client() as client:
        assert client.ask(get(path, "Connection: close"))["connection"] == "close"
        assert client.rest() == b""
    with scene.client() as client:
        client.ask(get(then))
    assert scene.origin.one(then).visit == scene.origin.one(path).visit


def test_connection_close_of_the_backend_is_its_own_business(scene):
    path, then = scene.origin.on(then_end(response(b"bye", "Connection: close"))), fresh_path()
    with scene.client() as client:
        message = client.ask(get(path))
        assert (message.body, message["connection"]) == (b"bye", None)
        assert client.ask(get(then)).status == 200
    assert scene.origin.one(then).visit != scene.origin.one(path).visit


# One after the other


def test_pipelined_requests_are_answered_in_their_order_one_at_a_time(scene):
    seen = []

    def slow_at_first(visit, request):
        visit.read_body(request)
        seen.append(len(scene.origin.heads))
        visit.send(response(b"first"))

    path, others = scene.origin.on(slow_at_first), [fresh_path() for _ in range(50)]
    before = len(scene.origin.heads)
    with scene.client() as client:
        client.send(get(path) + b"".join(get(one) for one in others))
        assert client.response().body == b"first"
        assert [client.response().body.decode() for _ in others] == others
    assert seen == [before + 1]
    assert [head.path for head in scene.origin.heads[before:]] == [path, *others]


def test_pipelined_requests_with_bodies_are_told_apart(scene):
    paths = [fresh_path() for _ in range(20)]
    bodies = [get(f"/within{number}") * number for number in range(20)]
    with scene.client() as client:
        client.send(b"".join(post(path, body) for path, body in zip(paths, bodies, strict=True)))
        assert [client.response().body.decode() for _ in paths] == paths
    assert [scene.origin.one(path).body for path in paths] == bodies


def test_a_client_that_has_ended_its_side_still_gets_its_answers(scene):
    def answer_late(visit, request):
        visit.read_body(request)
        eventually(lambda: ended)
        visit.send(response(request.path.encode()))

    ended, paths = [], [scene.origin.on(answer_late) for _ in range(3)]
    with scene.client() as client:
        client.send(b"".join(get(path) for path in paths))
        eventually(lambda: scene.origin.got(paths[0]))
        client.sock.shutdown(socket.SHUT_WR)
        await_acknowledged(client.sock)
        ended.append(True)
        assert [client.response().body.decode() for _ in paths] == paths
        assert client.rest() == b""


# The size of heads


@pytest.mark.parametrize("one_more", [False, True])
def test_the_size_of_a_requests_head_is_limited_exactly(scene, one_more):
    path = fresh_path()
    padding = 1024 + one_more - len(get(path, "X: "))
    with scene.client("small") as client:
        message = client.ask(get(path, "X: " + "a" * padding))
        assert message.status == (431 if one_more else 200)
    assert len(scene.origin.got(path)) == (0 if one_more else 1)


def padded_response(size: int) -> bytes:
    """Return an answer whose head has this size."""
    return response(b"body", "X: " + "a" * (size - len(response(b"", "X: "))))


@pytest.mark.parametrize(
    "size, status",
    [
        (1024, 200),
        (1025, 502),
        (70_000, 502),
    ],
)
def test_the_size_of_an_answers_head_is_limited_exactly(scene, size, status):
    path = scene.origin.on(padded_response(size))
    with scene.client("small") as client:
        assert client.ask(get(path)).status == status
        assert client.ask(get(fresh_path())).status == 200


# Interim answers

EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"


def test_interim_answers_are_passed_on_as_they_come(scene):
    path = scene.origin.on(b"HTTP/1.1 102 Processing\r\n\r\n" + EARLY + response(b"final"))
    with scene.client() as client:
        client.send(get(path))
        first, second = client.head(), client.head()
        assert (first.line, second.line) == ("HTTP/1.1 102 Processing", "HTTP/1.1 103 Early Hints")
        assert second["link"] == "</a.css>"
        assert client.response().body == b"final"
        assert client.ask(get(fresh_path())).status == 200


def test_an_interim_answer_does_not_wait_for_the_final_one(scene):
    heard = []

    def hint_then_wait(visit, request):
        visit.send(EARLY)
        eventually(lambda: heard, what="the client has the hint")
        visit.send(response())

    path = scene.origin.on(hint_then_wait)
    with scene.client() as client:
        client.send(get(path))
        heard.append(client.head())
        assert client.response().status == 200
    assert heard[0].status == 103


def test_an_interim_answer_is_not_for_http_1_0(scene):
    path = scene.origin.on(EARLY + response(b"final"))
    with scene.client() as client:
        assert client.ask(get(path, version="1.0")).body == b"final"


def test_what_speaks_to_the_edge_alone_is_not_passed_on_with_an_interim_answer(scene):
    early = EARLY[:-2] + b"Connection: X-Mine\r\nX-Mine: a\r\nKeep-Alive: b\r\n\r\n"
    path = scene.origin.on(early + response())
    with scene.client() as client:
        client.send(get(path))
        assert client.head().headers == [("link", "</a.css>"), ("via", "1.1 edgeproxy")]
        client.response()


# Expect: 100-continue

EXPECTS = ["Expect: 100-continue", "Content-Length: 5"]


def test_the_body_comes_when_the_backend_says_continue(scene):
    def invite(visit, request):
        visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        visit.read_body(request)
        visit.send(response(request.body))

    path = scene.origin.on(invite)
    with scene.client() as client:
        client.send(get(path, *EXPECTS, method="POST"))
        assert client.head().line == "HTTP/1.1 100 Continue"
        client.send(b"hello")
        assert client.response().body == b"hello"
        assert client.ask(get(fresh_path())).status == 200
    assert scene.origin.one(path)["expect"] == "100-continue"


def test_the_body_comes_although_the_backend_says_nothing(scene):
    path = scene.origin.on(response(b"done"))
    with scene.client() as client:
        client.send(get(path, *EXPECTS, method="POST"))
        eventually(lambda: [head for head in scene.origin.heads if head.path == path])
        client.send(b"hello")
        assert client.response().body == b"done"
        assert client.ask(get(fresh_path())).status == 200
    assert scene.origin.one(path).body == b"hello"


@pytest.mark.parametrize("status", ["417 Expectation Failed", "401 Unauthorized", "200 OK"])
def test_a_final_answer_instead_of_100_ends_both_connections_after_it(scene, status):
    """Nobody knows whether the body will come: neither connection can bring another message."""

    def decline(visit, request):
        visit.send(response(b"no", status=status))
        visit.wire.to_end()
        return True

    path = scene.origin.on(decline)
    with scene.client() as client:
        message = client.ask(get(path, *EXPECTS, method="POST"))
        assert (message.line, message.body, message["connection"]) == (f"HTTP/1.1 {status}", b"no", "close")
        assert client.rest() == b""
    (head,) = [head for head in scene.origin.heads if head.path == path]
    eventually(lambda: head.visit in scene.origin.ended)


def test_a_body_that_comes_without_being_asked_for_and_the_100_pass_each_other(scene):
    def invite_late(visit, request):
        visit.read_body(request)
        visit.send(b"HTTP/1.1 100 Continue\r\n\r\n" + response(request.body))

    path = scene.origin.on(invite_late)
    with scene.client() as client:
        client.send(get(path, *EXPECTS, method="POST") + b"hello")
        assert client.head().status == 100
        assert client.response().body == b"hello"
