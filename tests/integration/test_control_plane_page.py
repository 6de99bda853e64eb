"""docs/how-to/many-pops.md, done as it says: every command of it, in its order, with addresses of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import clean_environment
from tests.harness import ROOT, eventually, row, write_backends
from tests.integration.etcd_servers import etcd_running, pops
from tests.programs import program
from tests.traffic import free_ports, named, who

PAGE = (ROOT / "docs" / "how-to" / "many-pops.md").read_text()
API = 'api() { curl -sfH "Authorization: Bearer $(cat admin.token)" "$@"; }\n'


def block(beginning: str) -> str:
    """Return the page's commands that begin so; each is asked for once."""
    (found,) = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if text.startswith(beginning)]
    return str(found)


def shell(commands: str, folder: Path, **variables: str) -> str:
    """Run commands as a person in a folder would; all of them must succeed."""
    environment = clean_environment() | {"PYTHONPATH": str(ROOT), **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def etcd(tmp_path):
    """The first server of the page, alone; gives its port."""
    program("etcd", "etcd-server")
    program("etcdctl", "etcd-client")
    client_port, peer_port = free_ports(2)
    command = block("etcd --name")
    command = re.sub(r"(gru=http://[\d.:]+)\S*", r"\1", command)
    command = command.replace("10.50.1.1:2379", f"127.0.0.1:{client_port}").replace(
        "10.50.1.1:2380", f"127.0.0.1:{peer_port}"
    )
    command = command.replace("/var/lib/edgeproxy-etcd", str(tmp_path / "etcd"))
    with (tmp_path / "etcd.log").open("wb") as log:
        server = subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=log, stderr=log)
    yield client_port
    server.kill()
    server.wait()


def test_from_one_machine_to_many_and_back(etcd, tmp_path, origin):
    endpoint = f"http://127.0.0.1:{etcd}"
    ctl = {"ETCDCTL_ENDPOINTS": endpoint, "ETCDCTL_API": "3"}

    def is_up() -> bool:
        health = ["etcdctl", "endpoint", "health"]
        return subprocess.run(health, env=os.environ | ctl, capture_output=True, check=False).returncode == 0

    eventually(is_up, 30, "etcd is up")
    set_up = block("export ETCDCTL_ENDPOINTS").replace("10.50.1.1:2379", f"127.0.0.1:{etcd}")
    user = shell(f"{set_up}printenv ETCDCTL_USER", tmp_path).splitlines()[-1]
    ctl["ETCDCTL_USER"] = user

    settings = dict(line.split("=", 1) for line in block("EDGEPROXY_ETCD").splitlines())
    password = tmp_path / "etcd-password"
    password.write_text("SECRET\n")
    assert settings["EDGEPROXY_ETCD_ENDPOINTS"].count("http://") == 3
    variables = {"ETCD_USER": settings["EDGEPROXY_ETCD_USER"], "ETCD_PASSWORD_FILE": password}
    with pops(tmp_path) as make:
        first, second = make("gru", endpoint, **variables), make("fra", endpoint, **variables)
        write_backends(first.database, [row(name, origin(named(name))) for name in "ab"])
        shell(block("python -m app backends list"), first.folder)
        first.start()
        eventually(lambda: first.edge.ready()["replica"]["is_held"], what="the first machine's backends stay")
        assert who(first.edge) in {"a", "b"}

        address = "{}:{}".format(*first.admin.address)
        here = {"folder": first.folder, "EDGEPROXY_ADMIN_TOKEN_FILE": str(first.folder / "admin.token")}
        shell(block("python -m app backends --api").replace("localhost:8081", address), **here)
        second.start()
        eventually(lambda: who(second.edge) in {"a", "b"}, what="the second serves them too")
        assert first.status()["suspect_count"] == 0

        def api(beginning: str) -> None:
            shell(API + block(beginning).replace("localhost:8081", address), **here)

        api("api -X PUT localhost:8081/api/backends/gru-1")
        eventually(lambda: second.rows()["gru-1"]["deleted"] == 1, what="made and drained at the other")
        put, _, delete = block("api -X PUT localhost:8081/api/registrations").partition("\n")
        shell(API + put.replace("localhost:8081", address), **here)
        eventually(lambda: "web-1" in second.rows(), what="registered at the other")
        shell(API + delete.replace("localhost:8081", address), **here)
        eventually(lambda: "web-1" not in second.rows(), what="and not any more")
        shell(block("etcdctl put"), tmp_path, **ctl)
        eventually(lambda: "gru-2" in second.rows(), what="put by etcd's own command")

        first.stop_replicator()
        shell(block("python -c"), first.folder)
        shell("python -m app backends drain a", first.folder)
        assert first.rows()["a"]["deleted"] == 1


def test_a_backup_is_put_back_and_every_pop_has_what_it_had(tmp_path):
    program("etcdctl", "etcd-client")
    with etcd_running() as etcd, pops(tmp_path) as make:
        (node,) = etcd.nodes
        ctl = {"ETCDCTL_ENDPOINTS": node.url, "ETCDCTL_API": "3"}
        etcd.put_backend("a", 8001)
        connected, away = make("gru", etcd.endpoints), make("fra", etcd.endpoints)
        for place in (connected, away):
            place.start_replicator()
            eventually(lambda place=place: "a" in place.rows(), 15, "it has what there is")
        shell(block("etcdctl snapshot save"), tmp_path, **ctl)
        etcd.put_backend("a", 9999)
        later = etcd.put_backend("later", 8002)
        eventually(lambda: all("later" in place.rows() for place in (connected, away)), what="both have what came then")
        away.stop_replicator()

        node.kill()
        shutil.rmtree(etcd.folder / node.name)
        command = re.sub(r"(gru=http://[\d.:]+)\S*", r"\1", block("etcdctl snapshot restore"))
        command = command.replace("http://10.50.1.1:2380", node.peer_url).replace("gru", node.name)
        shell(command.replace("/var/lib/edgeproxy-etcd", str(etcd.folder / node.name)), tmp_path, **ctl)
        node.start()
        eventually(node.is_up, 30, "etcd is up again")
        eventually(lambda: connected.rows().keys() == {"a"}, 15, "who was there has what there is now")
        while etcd.revision() <= later:
            etcd.put("/edgeproxy/v1/heartbeat", "")
        away.start_replicator()
        eventually(lambda: away.rows().keys() == {"a"}, 15, "and who was away, though the revision is beyond its own")
        assert connected.rows()["a"]["port"] == away.rows()["a"]["port"] == 8001


def test_every_command_of_the_page_is_one_of_these():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 11
