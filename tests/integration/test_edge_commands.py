"""The commands that call the admin API, each against a real edge, and their errors."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import subprocess

import pytest

from tests.admin_client import admin_of, admin_variables
from tests.commands import command, edgeproxy, run
from tests.harness import ROOT, EdgeProcess, eventually, row, write_backends
from tests.programs import program

SCOPES = ("--scope", "read", "--scope", "operate", "--scope", "deploy")
CSV = "id,wg_ip,port,weight\ngru,127.0.0.1,9101,2\nsix,2001:db8::1,9102,\n"


def says(text):
    return f"def handle(request, context):\n    return {text!r}\n"


class Town:
    """An edge whose frontend `web` has a gateway, whose pool `shop` is the routing database, and a client of it."""

    def __init__(self, folder, *, gateway=True):
        self.folder = folder
        self.database = folder / "routing.db"
        write_backends(self.database, [row("gru", 1, app="shop")])
        config = {
            "frontends": [
                {"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": gateway, "backend": "shop"},
                {"name": "near", "listen": "127.0.0.1:0", "backend": "shop", "algorithm": "geo"},
            ],
            "backends": [{"name": "shop", "app": "shop"}],
        }
        variables = {name: str(value) for name, value in admin_variables(folder).items()}
        self.edge = EdgeProcess(folder, self.database, "", variables, config)
        self.admin = admin_of(self.edge, folder)
        host, port = self.admin.address
        self.url = f"http://{host}:{port}"
        self.variables = {"API_URL": self.url, "ADMIN_TOKEN_FILE": str(folder / "admin.token")}

    def do(self, *arguments, stdin="", **variables):
        """Run a command to its end, as a user of this edge does."""
        return command(*arguments, stdin=stdin, **{**self.variables, **variables})

    def ok(self, *arguments, stdin="", **variables):
        """Run a command that must succeed. Returns its output."""
        done = self.do(*arguments, stdin=stdin, **variables)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def json(self, *arguments, stdin=""):
        return json.loads(self.ok(*arguments, "--json", stdin=stdin))

    def ask(self, path):
        connection = http.client.HTTPConnection(*self.edge.address, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def test_an_endpoint_that_no_frontend_leads_to_is_not_said_to_serve(tmp_path):
    town = Town(tmp_path, gateway=False)
    try:
        town.ok("endpoints", "create", "lost", "--path", "/lost")
        said = town.ok("endpoints", "deploy", "lost", "-", stdin=says("lost"))
        assert said == "endpoint lost: version 1 is deployed, but no frontend has `gateway: on`\n"
        assert "version 1, to no frontend" in town.ok("endpoints", "list")
        assert "version 1, to no frontend" in town.ok("endpoints", "show", "lost")
    finally:
        town.edge.kill()


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = Town(tmp_path_factory.mktemp("town"))
    yield town
    town.edge.kill()


def test_a_disabled_endpoint_is_not_said_to_serve(town):
    town.ok("endpoints", "create", "off", "--path", "/off", "--disabled")
    said = town.ok("endpoints", "deploy", "off", "-", stdin=says("off"))
    assert said == "endpoint off: version 1 is deployed, but the endpoint is disabled\n"
    town.ok("endpoints", "delete", "off")


@pytest.fixture
def endpoint(town, request):
    """The id of an endpoint for this test, whose path is /ID."""
    name = request.node.name.split("[")[0].removeprefix("test_")[:60]
    town.ok("endpoints", "create", name, "--path", f"/{name}")
    yield name
    town.do("endpoints", "delete", name)


# Endpoints


def test_a_handler_is_deployed_swapped_rolled_back_and_undeployed(town, endpoint, tmp_path):
    file = tmp_path / "one.py"
    file.write_text(says("one"))
    assert town.ok("endpoints", "deploy", endpoint, file) == f"endpoint {endpoint}: version 1 is serving\n"
    assert town.ask(f"/{endpoint}") == (200, "one")
    assert town.json("endpoints", "deploy", endpoint, "-", stdin=says("two"))["number"] == 2
    assert town.ask(f"/{endpoint}") == (200, "two")
    assert town.ok("endpoints", "rollback", endpoint) == f"endpoint {endpoint}: version 1 is serving\n"
    assert town.ask(f"/{endpoint}") == (200, "one")
    assert town.json("endpoints", "deploy", endpoint, "--version", 2)["number"] == 2
    assert town.ask(f"/{endpoint}") == (200, "two")
    assert town.json("endpoints", "rollback", endpoint)["number"] == 1
    assert town.ok("endpoints", "undeploy", endpoint) == f"endpoint {endpoint}: undeployed\n"
    assert town.ask(f"/{endpoint}")[0] == 503


def test_a_source_is_uploaded_compiled_and_listed_without_serving(town, endpoint):
    kept = town.ok("endpoints", "upload", endpoint, "-", stdin="\ufeff" + says("kept"))
    assert kept == f"endpoint {endpoint}: version 1 stored\n"
    assert town.ok("endpoints", "compile", endpoint, 1) == f"endpoint {endpoint}: version 1 is valid\n"
    assert town.json("endpoints", "upload", endpoint, "-", stdin="x = 1\n")["number"] == 2
    done = town.do("endpoints", "compile", endpoint, 2)
    assert done.returncode == 2
    assert "must define `def handle(request, context)`" in done.stderr
    listed = town.json("endpoints", "versions", endpoint)["items"]
    assert [(one["number"], one["deployed_at"]) for one in listed] == [(1, None), (2, None)]
    head, first, _ = town.ok("endpoints", "versions", endpoint).splitlines()
    assert head.split() == ["version", "created", "deployed", "sha-256"]
    assert first.split()[0] == "1"
    assert first.split()[-1] == listed[0]["checksum"]
    assert town.ask(f"/{endpoint}")[0] == 503


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def handle(request, context)\n    pass", "endpoints: line 1: expected ':'"),
        ("import nothing_of_that_name\n", "endpoints: line 1: needs the module 'nothing_of_that_name'"),
        ("x = 1\n\nraise ValueError('as it loads')", "endpoints: line 3: ValueError: as it loads"),
    ],
)
def test_a_deployment_that_fails_prints_its_traceback_and_the_old_version_serves(town, endpoint, source, said):
    town.ok("endpoints", "deploy", endpoint, "-", stdin=says("good"))
    done = town.do("endpoints", "deploy", endpoint, "-", stdin=source)
    assert (done.returncode, done.stdout) == (2, "")
    assert "line" in done.stderr.splitlines()[0] or done.stderr.startswith("Traceback (most recent call last):")
    assert source.splitlines()[-1 if "raise" in source else 0] in done.stderr, "the line at fault"
    assert done.stderr.splitlines()[-1].startswith(said)
    assert town.ask(f"/{endpoint}") == (200, "good")


def test_an_endpoint_is_created_shown_changed_and_deleted(town):
    assert town.ok(
        "endpoints", "create", "orders", "--path", "/orders/<int:id>", "--method", "PUT", "--method", "get"
    ) == ("endpoint orders: created\n")
    options = ["--domain", "*.example.com", "--name", "Orders [red]", "--timeout", 1.5, "--max-concurrency", 3]
    options += ["--max-body-bytes", 10, "--disabled"]
    changed = town.json("endpoints", "update", "orders", *options)
    assert changed["methods"] == ["GET", "PUT"], "what is not named stays"
    assert (changed["domain"], changed["timeout_seconds"], changed["is_enabled"]) == ("*.example.com", 1.5, False)
    assert (changed["name"], changed["max_concurrency"], changed["max_body_bytes"]) == ("Orders [red]", 3, 10)
    shown = dict(
        line.split(maxsplit=1) for line in town.ok("endpoints", "show", "orders").splitlines() if " " in line.strip()
    )
    assert shown["name"].strip() == "Orders [red]"
    assert (shown["methods"].strip(), shown["is_enabled"].strip()) == ("GET, PUT", "no")
    assert town.json("endpoints", "show", "orders") == changed
    assert town.ok("endpoints", "update", "orders", "--domain", "", "--enabled") == "endpoint orders: changed\n"
    listed = {one["id"]: one for one in town.json("endpoints", "list")["items"]}
    assert (listed["orders"]["domain"], listed["orders"]["is_enabled"]) == (None, True)
    assert [line.split()[:2] for line in town.ok("endpoints", "list").splitlines() if "orders" in line] == [
        ["orders", "/orders/<int:id>"]
    ]
    assert town.ok("endpoints", "delete", "orders") == "endpoint orders: deleted\n"
    done = town.do("endpoints", "show", "orders")
    assert (done.returncode, done.stderr) == (2, "endpoints: there is no endpoint 'orders' (404)\n")


def test_faults_and_conflicts_are_distinguished(town, endpoint):
    done = town.do("endpoints", "create", "Bad Id", "--path", "no slash", "--timeout", 0)
    assert done.returncode == 2
    first, *faults = done.stderr.splitlines()
    assert first == "endpoints: this is not a valid endpoint (422)"
    assert {fault.split(": ")[1] for fault in faults} == {"id", "path", "timeout_seconds"}
    done = town.do("endpoints", "create", endpoint, "--path", "/other")
    assert (done.returncode, done.stderr) == (1, f"endpoints: endpoint '{endpoint}' already exists (409)\n")


def test_an_invalid_use_of_a_command_is_not_sent(town, endpoint, tmp_path):
    latin = tmp_path / "latin1.py"
    latin.write_bytes("x = 'são'\n".encode("latin-1"))
    for arguments in (
        ("deploy", endpoint),
        ("deploy", endpoint, latin),
        ("deploy", endpoint, latin, "--version", 1),
        ("deploy", endpoint, tmp_path / "absent.py"),
        ("deploy", endpoint, "--version", 0),
        ("update", endpoint),
        ("create", endpoint),
    ):
        done = town.do("endpoints", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
    assert town.json("endpoints", "versions", endpoint)["items"] == []


# Services


def test_a_service_is_created_tested_replaced_and_deleted(town, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"engine": "sqlite", "path": str(tmp_path / "a.db"), "connections": 2}))
    assert town.ok("services", "create", "main", "database", settings) == "service main: created, up\n"
    assert town.ok("services", "test", "main").startswith("service main: responds after ")
    assert town.json("services", "test", "main")["seconds"] >= 0
    other = json.dumps({"engine": "sqlite", "path": str(tmp_path / "b.db")})
    assert town.json("services", "replace", "main", "database", "-", stdin=other)["settings"]["path"].endswith("b.db")
    shown = town.ok("services", "show", "main")
    assert ["path", str(tmp_path / "b.db")] in [line.split() for line in shown.splitlines()]
    assert town.json("services", "show", "main")["is_up"] is True
    (line,) = [line for line in town.ok("services", "list").splitlines() if "main" in line]
    assert (line.split()[:3], line.split()[-1]) == (["main", "database", "sqlite"], "up")
    assert [one["name"] for one in town.json("services", "list")["items"]] == ["main"]
    assert town.ok("services", "delete", "main") == "service main: deleted\n"
    assert town.do("services", "show", "main").returncode == 2


def test_services_that_are_down_or_faulty(town, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = {"engine": "redis", "host": "127.0.0.1", "port": nobody.getsockname()[1], "password": "sesame"}
        made = town.ok("services", "create", "far", "cache", "-", stdin=json.dumps(settings))
        assert made.startswith("service far: created, down: ")
        done = town.do("services", "test", "far")
        assert done.returncode == 1
        assert done.stderr.startswith("services: ")
        again = json.dumps({**settings, "database": 1})
        assert town.do("services", "replace", "far", "cache", "-", stdin=again).returncode == 1
        replaced = town.ok("services", "replace", "far", "cache", "-", "--even-if-down", stdin=again)
        assert replaced.startswith("service far: replaced, down: ")
        assert "sesame" not in town.ok("services", "show", "far") + town.ok("services", "show", "far", "--json")
    town.ok("services", "delete", "far")
    done = town.do("services", "create", "x", "oracle", "-", stdin="{}")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "services: this is not a valid service (422)")
    for text in ("{", "[]"):
        assert town.do("services", "create", "x", "database", "-", stdin=text).returncode == 2


# Tokens


def test_a_token_is_created_used_listed_and_revoked(town, tmp_path):
    file = tmp_path / "reader.token"
    file.write_text(town.ok("tokens", "create", "reader", "--scope", "read"))
    assert "reader" in town.ok("tokens", "list")
    assert town.do("endpoints", "--token-file", file, "list").returncode == 0
    done = town.do("endpoints", "--token-file", file, "create", "x", "--path", "/x")
    assert (done.returncode, done.stderr) == (1, "endpoints: token reader lacks the scope deploy (403)\n")
    assert {one["name"]: one["scopes"] for one in town.json("tokens", "list")["items"]}["reader"] == ["read"]
    assert town.ok("tokens", "revoke", "reader") == "token reader: revoked\n"
    done = town.do("endpoints", "--token-file", file, "list")
    assert (done.returncode, done.stderr) == (1, "endpoints: the token is not valid (401)\n")
    assert town.do("tokens", "create", "x", "--scope", "everything").returncode == 2
    assert town.do("tokens", "revoke", "nobody").returncode == 2


def test_a_token_is_written_to_a_file_that_its_owner_alone_may_read(town, tmp_path):
    file = tmp_path / "reader.token"
    file.touch(0o644)
    made = town.ok("tokens", "create", "reader", "--scope", "read", "--output", file)
    assert made == f"token reader: written to {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert town.do("endpoints", "--token-file", file, "list").returncode == 0
    town.ok("tokens", "revoke", "reader")
    shown = json.loads(town.ok("tokens", "create", "reader", "--scope", "read", "--output", file, "--json"))
    assert (shown["name"], "token" in shown) == ("reader", False)
    town.ok("tokens", "revoke", "reader")
    done = town.do("tokens", "create", "reader", "--scope", "read", "--output", tmp_path / "no" / "folder")
    assert (done.returncode, done.stdout) == (2, "")
    assert "reader" not in town.ok("tokens", "list")


def test_a_token_whose_file_cannot_be_written_is_revoked(town, tmp_path):
    name = "x" * 256  # longer than a file's name may be
    done = town.do("tokens", "create", "reader", "--scope", "read", "--output", tmp_path / name)
    assert done.returncode == 1
    assert done.stderr == f"tokens: {tmp_path / name}: File name too long; token reader was revoked\n"
    assert "reader" not in town.ok("tokens", "list")


def test_the_token_comes_from_the_option_the_variable_or_the_file(town, tmp_path):
    made = town.json("tokens", "create", "everybody", *SCOPES)["token"]
    wrong = tmp_path / "wrong.token"
    wrong.write_text("edge_wrong\n")
    empty = tmp_path / "empty.token"
    empty.write_text("\n")
    assert town.do("tokens", "list", API_TOKEN=made, ADMIN_TOKEN_FILE=str(wrong)).returncode == 0
    assert town.do("tokens", "--token-file", wrong, "list", API_TOKEN=made).returncode == 1
    assert town.do("tokens", "--token-file", "-", "list", stdin=made, ADMIN_TOKEN_FILE=str(wrong)).returncode == 0
    for file in (empty, tmp_path / "absent", tmp_path):
        done = town.do("tokens", "list", ADMIN_TOKEN_FILE=str(file))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert str(file) in done.stderr
    assert town.do("tokens", "list", API_TOKEN="ümläut").returncode == 2
    town.ok("tokens", "revoke", "everybody")


# Backends


def test_backends_are_those_of_the_edge(town):
    loaded = town.ok("backends", "load", "-", stdin=CSV)
    assert loaded == f"2 backends loaded into {town.url}\n"
    assert town.ok("backends", "load", "--replace", "-", stdin=CSV) == loaded
    assert {one["id"]: one["weight"] for one in town.json("backends", "list")} == {"gru": 2, "six": 1}
    at_home = command("backends", "--db", town.database, "list", "--json")
    assert town.json("backends", "list") == json.loads(at_home.stdout), "the same from either side"
    assert town.ok("backends", "drain", "gru", "six", "gru", "--deadline", "60s") == "draining: gru, six, gru\n"
    assert [one["deleted"] for one in town.json("backends", "list")] == [1, 1]
    assert town.json("backends", "list")[0]["drain_deadline"] > 0
    assert town.ok("backends", "list").count("drained") == 2
    assert town.ok("backends", "undrain", "six") == "serving: six\n"
    done = town.do("backends", "remove", "six", "nobody", "no one")
    assert (done.returncode, done.stderr) == (2, "backends: no such backend: nobody, no one; nothing was changed\n")
    assert town.ok("backends", "remove", "six", "gru") == "removed: six, gru\n"
    assert town.json("backends", "list") == []


def test_ids_with_slashes_and_other_odd_letters_find_their_way(town):
    odd = 'a/b c?d#e%2F"é'
    rows = json.dumps([{"id": odd, "wg_ip": "127.0.0.1", "port": 1}])
    assert town.do("backends", "load", "-", stdin=rows).returncode == 0
    assert town.ok("backends", "drain", odd) == f"draining: {odd}\n"
    assert {one["id"]: one["deleted"] for one in town.json("backends", "list")}[odd] == 1
    assert town.ok("backends", "remove", odd) == f"removed: {odd}\n"


def test_a_file_with_a_bad_row_is_not_sent_and_one_that_is_too_large_is_refused(town):
    done = town.do("backends", "load", "-", stdin="id,wg_ip,port\na,127.0.0.1,70000\n")
    assert (done.returncode, done.stderr.splitlines()[0].split(":")[0]) == (2, "backends")
    assert town.json("backends", "list") == []
    too_many = "id,app,wg_ip,port\n" + "".join(f"{n:0255},{n:0255},127.0.0.1,80\n" for n in range(28_000))
    done = town.do("backends", "load", "-", stdin=too_many)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "backends: the body must not be larger than 16777216 bytes (413)",
    )
    assert town.json("backends", "list") == []


def test_ten_thousand_backends_come_whole_are_listed_and_loaded_from_the_list_and_replaced(town, tmp_path):
    many = "id,wg_ip,port\n" + "".join(f"b{number:04},127.0.0.1,80\n" for number in range(10_000))
    done = town.do("backends", "load", "-", stdin=many)
    assert (done.returncode, done.stdout) == (0, f"10000 backends loaded into {town.url}\n"), done
    assert done.stderr == f"loading 10000 backends into {town.url}, which may take some seconds\n"
    listed = town.json("backends", "list")
    assert [one["id"] for one in listed] == [f"b{number:04}" for number in range(10_000)]
    (tmp_path / "dumped.json").write_text(json.dumps([{**one, "weight": 2} for one in listed]))
    assert town.do("backends", "load", "--replace", tmp_path / "dumped.json").returncode == 0
    assert {one["weight"] for one in town.json("backends", "list")} == {2}
    town.ok("backends", "load", "--replace", "-", stdin=CSV)
    town.ok("backends", "remove", "gru", "six")
    assert town.json("backends", "list") == []


def test_the_edge_judges_rows_itself_all_of_them_or_none(town):
    good, bad = {"id": "a", "wg_ip": "127.0.0.1", "port": 80}, {"id": "b", "wg_ip": "no where", "port": 0}
    for items, named in (
        ([good, bad, {"id": "c"}], ["items.1.wg_ip", "items.1.port", "items.2.wg_ip", "items.2.port"]),
        ([{**good, "colour": 1}], ["items.0.colour"]),
        ([7], ["items.0.body"]),
        ([], ["items"]),
        (7, ["items"]),
        ({"a": good}, ["items"]),
        (None, ["items"]),
    ):
        refused = town.admin.call("PUT", "/api/backends", {"items": items})
        assert refused.status == 422
        assert [fault["where"] for fault in refused.problem["errors"]] == named
    for raw, status in (
        (b'{"items": [{"id": "\xff"}]}', 422),
        (b'{"items": [{"id": 1' + b"0" * 5000 + b"}]}", 422),
        (b'{"items": [{"id": NaN}]}', 400),
        (b'{"items": [' + b"[" * 100_000, 400),
        (b'{"items": [}', 400),
        (b"[]", 422),
        (b"", 422),
    ):
        refused = town.admin.call("PUT", "/api/backends", raw=raw, Content_Type="application/json")
        assert refused.problem["status"] == status, raw[:30]
    assert town.json("backends", "list") == []


def test_the_database_is_named_by_an_option_although_the_environment_names_an_edge(town, tmp_path):
    database = tmp_path / "other.db"
    assert town.do("backends", "--db", database, "load", "--demo").returncode == 0
    assert len(json.loads(town.ok("backends", "--db", database, "list", "--json"))) == 5
    assert town.json("backends", "list") == []
    done = command("backends", "--db", database, "--api", town.url, "list")
    assert done.returncode == 2
    assert "give either --db or --api" in done.stderr


# The way to the edge


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("localhost:8081", 2, "is not the URL of an edge"),
        ("ftp://localhost", 2, "is not the URL of an edge"),
        ("http://", 2, "is not the URL of an edge"),
        ("http://localhost:99999", 2, "is not the URL of an edge"),
        ("http://127.0.0.1:{closed}", 1, ": Connection refused"),
        ("http://no-such-host.invalid", 1, "no response from "),
        ("http://127.0.0.1:{metrics}", 1, "is not the admin API of an edge"),
        ("https://127.0.0.1:{admin}", 1, "no response from "),
    ],
)
def test_an_edge_that_is_not_there_is_one_line(town, url, code, said):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {
            "closed": closed.getsockname()[1],
            "metrics": town.edge.metrics_address[1],
            "admin": town.admin.address[1],
        }
        done = town.do("services", "--api", url.format(**ports), "list")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)
    assert done.stderr.startswith("services: ")
    assert said in done.stderr


def test_help_needs_neither_edge_nor_token(tmp_path):
    for arguments in (["endpoints"], ["endpoints", "deploy"], ["services", "create"], ["tokens", "create"]):
        done = command(*arguments, "--help", ADMIN_TOKEN_FILE=str(tmp_path / "absent"))
        assert (done.returncode, done.stderr) == (0, "")


def test_as_processes_and_by_the_seeding_script(town):
    done = edgeproxy("endpoints", "list", "--json", **town.variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert "items" in json.loads(done.stdout)
    done = run([str(ROOT / "scripts" / "seed_backends.py"), "list", "--json"], **town.variables)
    assert (done.returncode, json.loads(done.stdout)) == (0, town.json("backends", "list"))


def test_an_edge_with_a_certificate_of_its_own(edge, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-days", "1", "-subj", "/CN=edge", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, "-out", cert, "-keyout", key], check=True, capture_output=True)
    proxy = edge([], **admin_variables(tmp_path), ADMIN_TLS_CERT=cert, ADMIN_TLS_KEY=key)
    host, _, port = eventually(lambda: proxy.event("listening on"))["admin"].rpartition(":")
    url, token = f"https://{host}:{port}", str(tmp_path / "admin.token")
    done = command("tokens", "--api", url, "list", ADMIN_TOKEN_FILE=token)
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr
    assert command("tokens", "--api", url, "--ca-file", cert, "list", ADMIN_TOKEN_FILE=token).returncode == 0
    assert command("tokens", "list", API_URL=url, API_CA_FILE=str(cert), ADMIN_TOKEN_FILE=token).returncode == 0
    assert command("tokens", "--api", url, "--ca-file", key, "list", ADMIN_TOKEN_FILE=token).returncode == 2


def test_whatever_id_a_row_has_it_is_listed_and_removed(town):
    odd = ["", "a\nb", "/a", "..", "\t"]
    write_backends(town.database, [row(one, 1) for one in odd])
    assert sorted(one["id"] for one in town.json("backends", "list")) == sorted(odd)
    for one in odd:
        assert town.ok("backends", "remove", "--", one) == f"removed: {one}\n"
    assert town.json("backends", "list") == []
