"""Access to the admin API: tokens, scopes, refusals, limits, and the audit log."""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import stat
import subprocess

import pytest

from app.admin.api import LARGEST_BODY_BYTES, LARGEST_BULK_BYTES
from app.config import ListenAddress
from app.domain.tokens import digest_of
from app.inbound.admin_server import AdminServer
from app.inbound.listener import BindError
from tests.admin_client import SCOPES, Admin, admin_of, admin_variables, edge_with_admin
from tests.commands import edgeproxy
from tests.harness import eventually, frontend, pool, row
from tests.integration.peers import reset
from tests.programs import program

READING = [
    "/api/backends", "/api/backends/gru", "/api/connections", "/api/bindings", "/api/pools",
    "/api/pools/default/backends", "/api/frontends", "/api/actors", "/api/explain?client=8.8.8.8", "/api/logs",
    "/api/metrics", "/api/configuration", "/api/status", "/api/tokens", "/api/token", "/api/endpoints", "/api/services",
    "/api/clients",
]  # fmt: skip
OPERATING = {
    "POST /api/backends": 422,
    "PUT /api/backends": 422,
    "PUT /api/backends/x": 422,
    "POST /api/backends/nobody/drain": 404,
    "POST /api/backends/nobody/undrain": 404,
    "DELETE /api/backends/nobody": 404,
    "PUT /api/registrations/nobody": 422,
    "DELETE /api/registrations/nobody": 404,
    "DELETE /api/connections/nobody": 404,
    "DELETE /api/clients/127.0.0.9/connections": 200,
    "DELETE /api/bindings/default/127.0.0.9": 404,
    "POST /api/reload": 409,
    "POST /api/tokens": 422,
    "DELETE /api/tokens/nobody": 404,
    "POST /api/services/nobody/test": 404,
}
"""Requests by scope, with the status they get with that scope."""
DEPLOYING = {
    "POST /api/endpoints": 422,
    "PUT /api/endpoints/nobody": 422,
    "DELETE /api/endpoints/nobody": 404,
    "POST /api/endpoints/nobody/versions": 422,
    "POST /api/endpoints/nobody/versions/1/compile": 404,
    "POST /api/endpoints/nobody/versions/1/deploy": 404,
    "POST /api/endpoints/nobody/deploy": 422,
    "POST /api/endpoints/nobody/roll-back": 404,
    "POST /api/endpoints/nobody/undeploy": 404,
    "POST /api/services": 422,
    "PUT /api/services/nobody": 422,
    "DELETE /api/services/nobody": 404,
}
"""Changing requests by scope, likewise."""
WITH_A_BODY = {
    "POST /api/backends", "PUT /api/backends", "PUT /api/backends/x", "POST /api/tokens", "POST /api/endpoints",
    "PUT /api/endpoints/nobody", "POST /api/endpoints/nobody/versions", "POST /api/endpoints/nobody/deploy",
    "POST /api/services", "PUT /api/services/nobody",
}  # fmt: skip
NOTHING: dict[str, object] = {}


def read_to_end(sock):
    """Return everything until the other side closes."""
    received = b""
    try:
        while chunk := sock.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One edge and its admin API, for the tests that change nothing there."""
    with edge_with_admin(tmp_path_factory.mktemp("shared"), [row("gru", 1)]) as (proxy, admin):
        yield proxy, admin


@pytest.fixture
def reader(shared):
    """The admin API that tests share, with the first token."""
    return shared[1]


SOURCES = itertools.count(1)


def stranger(admin, token=None):
    """Return a client of its own address: failures are limited by address."""
    return Admin(admin.address, token, f"127.0.1.{next(SOURCES)}")


@pytest.fixture
def proxy(edge, tmp_path):
    proxy = edge([row("gru", 1)], **admin_variables(tmp_path))
    proxy.wait_for_backends(1)
    return proxy


@pytest.fixture
def admin(proxy, tmp_path):
    return admin_of(proxy, tmp_path)


def body_of(request):
    return NOTHING if request in WITH_A_BODY else None


def audit(proxy):
    return [line for line in proxy.log() if line["event"] == "admin"]


def test_the_first_start_creates_a_token_file_readable_by_its_owner_only(proxy, tmp_path):
    file = tmp_path / "admin.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = proxy.event("admin: the first token is in")
    assert told["path"] == str(file)
    text = file.read_text().strip()
    assert text not in proxy.log_path.read_text()
    assert text.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))


def test_a_later_start_keeps_the_tokens(edge, tmp_path):
    admin = admin_of(edge([], **admin_variables(tmp_path)), tmp_path)
    ci = admin.bearer("ci", "read")
    again = edge([], **admin_variables(tmp_path))
    assert again.event("admin: the first token is in") is None
    address = admin_of(again, tmp_path).address
    assert Admin(address, ci.token).get("/api/status")
    assert Admin(address, admin.token).get("/api/status")


@pytest.mark.parametrize("path", [*READING, "/openapi.json", "/nowhere"])
def test_every_route_requires_a_token(reader, path):
    response = stranger(reader).call("GET", path)
    assert response.problem["status"] == 401
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer x", "Basic {token}", "{token}", "Bearer {token}x", "Bearer {digest}", "Bearer é",
     "Bearer {token} {token}"],
)  # fmt: skip
def test_a_wrong_token_is_401_and_logged_without_it(shared, header):
    proxy, admin = shared
    shown = header.format(token=admin.token, digest=digest_of(admin.token))
    response = stranger(admin).call("GET", "/api/status", Authorization=shown.encode().decode("latin-1"))
    assert response.problem["status"] == 401
    eventually(lambda: proxy.event("admin: request refused"))
    assert admin.token not in proxy.log_path.read_text()


def test_the_scheme_is_case_insensitive(reader):
    assert Admin(reader.address, None).call("GET", "/api/status", Authorization=f"bearer {reader.token}").status == 200


def test_a_token_in_the_query_is_ignored(reader):
    assert stranger(reader).call("GET", f"/api/status?access_token={reader.token}").status == 401


def test_failures_are_limited_but_a_valid_token_always_passes(proxy, admin):
    stranger = Admin(admin.address, "edge_wrong")
    responses = [stranger.call("GET", "/api/status") for _ in range(15)]
    assert [response.status for response in responses] == [401] * 10 + [429] * 5
    assert responses[-1].problem["status"] == 429
    assert 1 <= int(responses[-1].headers["retry-after"]) <= 5
    assert admin.call("GET", "/api/status").status == 200
    assert stranger.call("GET", "/api/status").status == 429
    eventually(lambda: proxy.event("admin: request refused"))
    refused = [line for line in proxy.log() if line["event"].startswith("admin: request refused")]
    assert len(refused) <= 10


@pytest.mark.parametrize("scope", SCOPES)
def test_reading_needs_only_the_scope_read(admin, scope):
    bearer = admin.bearer(scope, scope)
    for path in READING:
        response = bearer.call("GET", path)
        if scope == "read":
            assert response.status == 200, (path, response)
        else:
            assert response.problem["status"] == 403, (path, response)
            assert response.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="read"'


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("needed", "requests"), [("operate", OPERATING), ("deploy", DEPLOYING)])
def test_changing_needs_only_its_own_scope(admin, needed, requests, scope):
    bearer = admin.bearer(scope, scope)
    for request, expected in requests.items():
        response = bearer.call(*request.split(), body_of(request))
        assert response.status == (expected if scope == needed else 403), (request, response)
        assert expected == 200 or response.problem


def test_every_route_is_in_one_of_the_lists_above(reader):
    described = reader.get("/openapi.json")["paths"]
    (*scopes,) = (one["security"][0]["bearer"] for methods in described.values() for one in methods.values())
    assert scopes.count(["operate"]) == len(OPERATING)
    assert scopes.count(["deploy"]) == len(DEPLOYING) + 1, "and a source"
    # Besides: a binding, the log's stream, an endpoint, its versions, a service.
    assert scopes.count(["read"]) == len(READING) + 5


def test_a_token_grants_and_revokes_only_scopes_it_has(admin):
    operator = admin.bearer("operator", "operate", "read")
    refused = operator.call("POST", "/api/tokens", {"name": "more", "scopes": ["read", "deploy"]})
    assert (refused.problem["status"], "deploy" in refused.problem["detail"]) == (403, True)
    assert operator.call("DELETE", "/api/tokens/first").problem["status"] == 403
    operator.bearer("less", "read")
    assert operator.call("DELETE", "/api/tokens/less").status == 204
    assert [one["name"] for one in admin.get("/api/tokens")["items"]] == ["first", "operator"]


def test_a_revoked_token_is_refused_at_once_and_its_streams_end(admin):
    reader = admin.bearer("reader", "read")
    with reader.connect() as stream:
        request = f"GET /api/logs/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader.token}\r\n\r\n"
        stream.sendall(request.encode())
        assert stream.recv(100).startswith(b"HTTP/1.1 200 ")
        assert admin.call("DELETE", "/api/tokens/reader").status == 204
        assert reader.call("GET", "/api/status").status == 401
        while stream.recv(65536)[-5:] != b"0\r\n\r\n":
            pass


def test_the_last_token_cannot_be_revoked_and_names_are_unique(reader):
    assert reader.call("DELETE", "/api/tokens/first").problem["status"] == 409
    assert reader.call("POST", "/api/tokens", {"name": "first", "scopes": ["read"]}).problem["status"] == 409


@pytest.mark.parametrize(
    "token",
    [{"name": "", "scopes": ["read"]}, {"name": "a b", "scopes": ["read"]}, {"name": "x", "scopes": []},
     {"name": "x", "scopes": ["conquer"]}, {"name": "x"}, {"name": "\ud800", "scopes": ["read"]}],
)  # fmt: skip
def test_an_invalid_token_body_is_refused(reader, token):
    assert reader.call("POST", "/api/tokens", token).problem["errors"]


def test_tokens_are_listed_without_their_secrets(admin):
    reader = admin.bearer("reader", "read")
    shown = admin.call("GET", "/api/tokens").body.decode()
    for text in (admin.token, reader.token):
        assert text not in shown
        assert digest_of(text) not in shown


# Problems


def test_an_unknown_route_and_a_wrong_method(reader):
    assert reader.call("GET", "/api/nothing").problem["status"] == 404
    response = reader.call("PATCH", "/api/backends")
    assert response.problem["status"] == 405
    assert set(re.split(", *", response.headers["allow"])) == {"GET", "HEAD", "POST", "PUT"}
    assert reader.call("OPTIONS", "/api/backends").problem["status"] == 405


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff", b"[" * 100_000, b'{"id": 1e999999', b"nonsense"])
def test_invalid_json_is_400_and_an_empty_body_is_422(reader, raw):
    response = reader.call("POST", "/api/backends", raw=raw, Content_Type="application/json")
    assert response.problem["status"] == (400 if raw else 422)


@pytest.mark.parametrize("body", [[], "text", 1, None, [{"id": "x"}]])
def test_json_that_is_not_an_object_is_422(reader, body):
    import json

    response = reader.call("POST", "/api/backends", raw=json.dumps(body).encode(), Content_Type="application/json")
    assert response.problem["status"] == 422


def test_a_wrong_content_type_is_415_and_an_unexpected_body_is_400(reader):
    response = reader.call("POST", "/api/backends", raw=b"id=x", Content_Type="application/x-www-form-urlencoded")
    assert response.problem["status"] == 415
    assert reader.call("POST", "/api/reload", {"now": True}).problem["status"] == 400
    assert reader.call("DELETE", "/api/backends/gru", {"now": True}).problem["status"] == 400


def test_a_body_that_is_too_large_is_413_with_or_without_a_content_length(reader):
    huge = b'{"id": "' + b"x" * LARGEST_BODY_BYTES + b'"}'
    assert reader.call("POST", "/api/backends", raw=huge, Content_Type="application/json").problem["status"] == 413
    with reader.connect() as sock:
        head = f"POST /api/backends HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader.token}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
    with reader.connect() as sock:
        bulk = head.replace("POST", "PUT", 1)
        sock.sendall(
            f"{bulk}Content-Type: application/json\r\nContent-Length: {LARGEST_BULK_BYTES + 1}\r\n\r\n".encode()
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
    with reader.connect() as sock:
        sock.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            for _ in range(LARGEST_BODY_BYTES // 0x10000 + 2):
                sock.sendall(chunk)
        except ConnectionError:
            pass
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_invalid_parameters_are_named_without_their_values(reader):
    response = reader.call("GET", "/api/backends?first=-1&count=hunter2&wat=1")
    assert response.status == 422
    assert [fault["where"] for fault in response.problem["errors"]] == ["first", "count", "wat"]
    assert b"hunter2" not in response.body


def test_every_response_forbids_caching_and_sniffing(reader):
    for path in ("/api/status", "/nowhere", "/openapi.json"):
        headers = reader.call("GET", path).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


# Limits


def test_a_late_body_is_408_and_a_refused_one_is_not_awaited(reader):
    head = "POST /api/backends HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    with reader.connect() as slow, reader.connect() as stranger:
        slow.sendall(f"{head}Authorization: Bearer {reader.token}\r\n\r\n{{".encode())
        stranger.sendall(f"{head}\r\n{{".encode())
        stranger.settimeout(5)
        assert read_to_end(stranger).startswith(b"HTTP/1.1 401 ")
        slow.settimeout(15)
        assert read_to_end(slow).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_leaves_within_its_body_leaves_no_traceback(proxy, admin):
    head = b"POST /api/backends HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    for _ in range(10):
        with admin.connect() as leaver:
            leaver.sendall(head)
            reset(leaver)
    assert admin.get("/api/status")
    proxy.kill()  # which looks for tracebacks


def is_open(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True


def test_silent_clients_are_disconnected_and_do_not_lock_others_out(reader):
    held = [reader.connect() for _ in range(70)]  # more than the server serves at once
    try:
        assert reader.get("/api/status")
        assert is_open(held[-1]), "their time is not over: the one idle longest made room"
        eventually(lambda: not is_open(held[0]))
    finally:
        for sock in held:
            sock.close()


def test_an_endless_header_is_abandoned(reader):
    with reader.connect() as sock:
        sock.sendall(b"GET /api/status HTTP/1.1\r\nHost: x\r\n")
        sock.settimeout(8)
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


# The audit


def test_every_change_is_one_audit_line_with_token_action_target_and_result(proxy, admin):
    operator = admin.bearer("night-shift", "operate")
    reader = admin.bearer("reader", "read")
    operator.call("POST", "/api/backends", {"id": "new", "wg_ip": "127.0.0.1", "port": 1})
    operator.call("POST", "/api/backends/gru/drain?deadline_seconds=5")
    operator.call("DELETE", "/api/backends/nobody")
    operator.call("DELETE", "/api/bindings/default/127.0.0.9")
    reader.call("DELETE", "/api/backends/gru")
    operator.call("POST", "/api/backends", {"id": "bad", "wg_ip": "x!", "port": 0})
    reader.call("GET", "/api/backends")
    lines = eventually(lambda: len(audit(proxy)) >= 8 and audit(proxy))
    assert [(line["token"], line["action"], line["target"], line["status"]) for line in lines] == [
        ("first", "create_token", "night-shift", 201),
        ("first", "create_token", "reader", 201),
        ("night-shift", "register_backend", "new", 201),
        ("night-shift", "drain_backend", "gru", 204),
        ("night-shift", "remove_backend", "nobody", 404),
        ("night-shift", "unbind_client", "default 127.0.0.9", 404),
        ("reader", "remove_backend", "gru", 403),
        ("night-shift", "register_backend", "", 422),
    ]
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    assert lines[2]["result"] == "done"
    assert lines[4]["result"] == "no such backend: nobody"
    assert "wg_ip: must be an IPv4 or IPv6 address" in lines[7]["result"]
    text = proxy.log_path.read_text()
    assert not any(token in text for token in (admin.token, operator.token, reader.token))


def test_the_audit_is_written_at_every_log_level(edge, tmp_path):
    config = {"frontends": [frontend("web", "p")], "backends": [pool("p", 1)]}
    proxy = edge(config=config, **admin_variables(tmp_path))
    admin = admin_of(proxy, tmp_path)
    proxy.write_config({**config, "global": {"log_level": "error"}})
    assert admin.call("POST", "/api/reload").status == 200
    assert admin.call("DELETE", "/api/tokens/nobody").status == 404
    lines = eventually(lambda: len(audit(proxy)) == 2 and audit(proxy))
    assert [line["action"] for line in lines] == ["reload_configuration", "revoke_token"]


def test_a_path_cannot_break_an_audit_line(proxy, admin):
    admin.call("DELETE", "/api/backends/a%0A%7B%22event%22%3A%22admin%22%7D%FF")
    (line,) = eventually(lambda: audit(proxy))
    assert line["action"] == "remove_backend"
    assert line["target"].startswith('a\n{"event":"admin"}')


# The start


def test_off_is_off(edge):
    proxy = edge([], ADMIN_LISTEN_ADDR="")
    assert proxy.event("listening on")["admin"] is None
    assert "admin API off" in proxy.event("listening on")["event"]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_listening_beyond_loopback_must_be_requested(edge, tmp_path, address):
    done = edgeproxy("serve", ADMIN_LISTEN_ADDR=address, GEOIP_PATH="off")
    assert done.returncode == 2
    assert (
        "is not a loopback address and needs TLS: set EDGEPROXY_ADMIN_TLS_CERT, or EDGEPROXY_ADMIN_INSECURE=true"
        in done.stderr
    )
    variables = {**admin_variables(tmp_path), "ADMIN_LISTEN_ADDR": address, "ADMIN_INSECURE": "true"}
    proxy = edge([], **variables)
    assert not proxy.event("listening on")["admin"].startswith("127.")


def test_a_taken_port_and_an_unwritable_token_file_are_one_line(tmp_path):
    everywhere = {"LISTEN_ADDR": "127.0.0.1:0", "METRICS_LISTEN_ADDR": "127.0.0.1:0", "GEOIP_PATH": "off"}
    files = {"ADMIN_TOKEN_FILE": str(tmp_path / "token"), "GATEWAY_DB_PATH": str(tmp_path / "gateway.db")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        done = edgeproxy("serve", **everywhere, **files, ADMIN_LISTEN_ADDR=address)
    assert done.returncode == 2
    assert (
        f"edgeproxy: EDGEPROXY_ADMIN_LISTEN_ADDR: cannot listen on {address} (admin): Address already in use"
        in done.stderr.splitlines()
    )
    files = {"ADMIN_TOKEN_FILE": str(tmp_path / "no" / "token"), "GATEWAY_DB_PATH": str(tmp_path / "other.db")}
    done = edgeproxy("serve", **everywhere, **files, ADMIN_LISTEN_ADDR="127.0.0.1:0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("edgeproxy: the first token cannot be written to")


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 and its key."""
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=edge", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def test_with_a_certificate_it_serves_tls_only(edge, tmp_path, certificate):
    cert, key = certificate
    proxy = edge([], **admin_variables(tmp_path), ADMIN_TLS_CERT=cert, ADMIN_TLS_KEY=key)
    admin = admin_of(proxy, tmp_path)
    request = f"GET /api/status HTTP/1.0\r\nAuthorization: Bearer {admin.token}\r\n\r\n".encode()
    trusting = ssl.create_default_context(cafile=cert)
    held = [admin.connect() for _ in range(70)]  # in their handshake, more than the server serves at once
    with admin.connect() as raw, trusting.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        sock.sendall(request)
        assert read_to_end(sock).startswith(b"HTTP/1.1 200 ")
        assert is_open(held[-1]), "its time is not over"
        assert not is_open(held[0])
    for one in held:
        one.close()
    with admin.connect() as silent, admin.connect() as plain, admin.connect() as raw:
        plain.sendall(request)
        assert read_to_end(plain) == b""
        with trusting.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
            sock.sendall(request)
            assert read_to_end(sock).startswith(b"HTTP/1.1 200 ")
        silent.settimeout(8)
        assert silent.recv(1) == b""  # its time for the handshake is over
    assert not [line for line in proxy.log() if line.get("level") in ("WARNING", "ERROR") and "TLS" in line["event"]]


@pytest.mark.parametrize("text", [None, "nonsense"])
def test_an_unusable_certificate_is_one_line(tmp_path, text):
    cert = tmp_path / "cert.pem"
    if text is not None:
        cert.write_text(text)
    variables = {name: str(value) for name, value in admin_variables(tmp_path).items()}
    done = edgeproxy("serve", **variables, ADMIN_TLS_CERT=str(cert), LISTEN_ADDR="127.0.0.1:0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"edgeproxy: EDGEPROXY_ADMIN_TLS_CERT: cannot load the admin API's TLS certificate from {cert}: "
    )


def test_what_is_wrong_with_a_certificate_is_said_in_words(tmp_path, certificate):
    cert, key = certificate
    openssl, other, secret = program("openssl", "openssl"), tmp_path / "other.pem", tmp_path / "secret.pem"
    subprocess.run([openssl, "genrsa", "-out", other], check=True, capture_output=True)
    subprocess.run(
        [openssl, "ec", "-in", key, "-out", secret, "-aes128", "-passout", "pass:x"], check=True, capture_output=True
    )
    faults = {
        other: "the key does not belong to the certificate",
        None: "needs a certificate and its key in PEM",
        secret: "the key without a password",
    }
    for used, fault in faults.items():
        with pytest.raises(BindError, match=fault):
            AdminServer(ListenAddress("127.0.0.1", 0), cert, used)


def test_an_invalid_token_database_is_one_line(tmp_path):
    store = tmp_path / "gateway.db"
    store.write_bytes(b"no database" * 100)
    done = edgeproxy("serve", LISTEN_ADDR="127.0.0.1:0", GEOIP_PATH="off", GATEWAY_DB_PATH=str(store))
    assert (done.returncode, done.stderr) == (2, f"edgeproxy: {store}: file is not a database\n")
