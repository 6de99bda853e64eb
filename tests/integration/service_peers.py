"""Real databases, caches, object stores and mail servers in their own processes, to kill, freeze and restart."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent

from actors.services.supervision import Services
from app.domain.services import ServiceSpec, parse_service
from tests.harness import ROOT, eventually, freeze
from tests.programs import program
from tests.traffic import free_ports

USER, PASSWORD, DATABASE, BUCKET = "edge", "s3cret-of-tests", "shop", "things"


class Peer:
    """A server on a loopback port chosen by the kernel, with its own folder."""

    kind = ""
    engine = ""
    start_seconds = 30.0

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"edge-{self.engine}-"))
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.folder / "log"
        self.prepare()

    def prepare(self) -> None:
        """Create what the server needs in its folder."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        return {"engine": self.engine, "host": "127.0.0.1", "port": self.port}

    def spec(self, name: str = "main", **more: Any) -> ServiceSpec:
        """Return the spec of a service on this server; `more` are settings."""
        return parse_service({"name": name, "kind": self.kind, "settings": {**self.settings(), **more}})

    def is_up(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def start(self) -> None:
        """Start the server and wait until it is up."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.user_arguments(),
            )
        eventually(self._has_started, self.start_seconds, f"{self.engine} is up: {self.log}")

    def _has_started(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self.is_up()

    def user_arguments(self) -> dict[str, Any]:
        """Return the arguments of Popen that set the server's user."""
        return {}

    def signal(self, number: int) -> None:
        """Signal every process of the server, parents before their children."""
        assert self.process is not None
        for pid in _family(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """Stop every process of the server, parents before their children."""
        assert self.process is not None
        for pid in _family(self.process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                freeze(pid)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            family = _family(self.process.pid)
            self.signal(signal.SIGKILL)
            self.process.wait()
            eventually(lambda: not any(map(_is_running, family)), what=f"the end of {self.engine}")
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _is_running(pid: int) -> bool:
    """Return whether a process runs, and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class _Unprivileged(Peer):
    """A server that refuses to run as root: it then runs as the user of its Debian package."""

    user = ""

    def user_arguments(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}

    def own_the_folder(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)


class Postgresql(_Unprivileged):
    kind, engine, user = "database", "postgresql", "postgres"

    def prepare(self) -> None:
        initdb = program("initdb", "postgresql", "/usr/lib/postgresql/*/bin")
        self.server = str(Path(initdb).parent / "postgres")
        self.own_the_folder()
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        subprocess.run(
            [initdb, "-D", str(self.folder / "data"), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}",
             "--no-sync", "--no-locale", "-E", "UTF8", "--no-instructions"],
            check=True, capture_output=True, cwd="/", **self.user_arguments(),
        )  # fmt: skip

    def command(self) -> list[str]:
        return [
            self.server, "-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder),
            "--listen_addresses=127.0.0.1", "--fsync=off", "--max_connections=40", "--shared_buffers=16MB",
        ]  # fmt: skip

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"user": USER, "password": PASSWORD, "database": "postgres"}

    def is_up(self) -> bool:
        import psycopg

        with suppress(psycopg.OperationalError):
            psycopg.connect(
                host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres", connect_timeout=2
            ).close()
            return True
        return False


class Mariadb(Peer):
    kind, engine = "database", "mysql"

    def prepare(self) -> None:
        self.server = program("mariadbd", "mariadb-server")
        install = program("mariadb-install-db", "mariadb-server")
        first = self.folder / "first.sql"
        first.write_text(
            f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n"  # one statement a line
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON {DATABASE}.* TO '{USER}'@'%';\n"
        )
        subprocess.run(
            [install, "--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-test-db",
             "--auth-root-authentication-method=normal", *self.as_root()],
            check=True, capture_output=True,
        )  # fmt: skip

    def as_root(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def command(self) -> list[str]:
        return [
            self.server, "--no-defaults", f"--datadir={self.folder / 'data'}", f"--port={self.port}",
            "--bind-address=127.0.0.1", f"--socket={self.folder / 'socket'}",
            f"--init-file={self.folder / 'first.sql'}",
            "--skip-name-resolve", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0",
            *self.as_root(),
        ]  # fmt: skip

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"user": USER, "password": PASSWORD, "database": DATABASE}


class Redis(Peer):
    kind, engine = "cache", "redis"

    def command(self) -> list[str]:
        return [
            program("redis-server", "redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(self.folder), "--requirepass", PASSWORD,
        ]  # fmt: skip

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"password": PASSWORD}


class Memcached(Peer):
    kind, engine = "cache", "memcached"

    def command(self) -> list[str]:
        as_root = ["-u", "root"] if os.geteuid() == 0 else []
        return [program("memcached", "memcached"), "-p", str(self.port), "-l", "127.0.0.1", "-U", "0", *as_root]


class S3(Peer):
    """moto's server."""

    kind, engine = "storage", "s3"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def settings(self) -> dict[str, Any]:
        return {
            "engine": self.engine, "endpoint": f"http://127.0.0.1:{self.port}", "bucket": BUCKET,
            "access_key": "test", "secret_key": PASSWORD,
        }  # fmt: skip

    def start(self) -> None:
        from minio import Minio

        super().start()
        Minio(f"127.0.0.1:{self.port}", "test", PASSWORD, secure=False).make_bucket(BUCKET)


class Mail(Peer):
    """aiosmtpd, which stores the mails it receives."""

    kind, engine = "email", "smtp"

    def command(self) -> list[str]:
        script = ROOT / "tests" / "integration" / "mail_server.py"
        return [sys.executable, str(script), str(self.port), str(self.folder / "mails"), USER, PASSWORD]

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"tls": "off", "user": USER, "password": PASSWORD, "sender": "shop@example.org"}

    def mails(self) -> list[dict[str, Any]]:
        """Return the mails accepted so far."""
        path = self.folder / "mails"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def running(make: Callable[[], Peer]) -> Iterator[Peer]:
    """Run a server for the block."""
    peer = make()
    try:
        peer.start()
        yield peer
    finally:
        peer.remove()


def start_up(services: Services, spec: ServiceSpec) -> None:
    """Start a service and wait until every connection is open."""
    view = services.start(spec)
    assert view.counts.is_up, view.counts.reason
    eventually(lambda: services.describe_one(spec.name).counts.connected == spec.connections)


def sqlite_spec(folder: Path, name: str = "main", **more: Any) -> ServiceSpec:
    settings = {"engine": "sqlite", "path": str(folder / "shop.db"), **more}
    return parse_service({"name": name, "kind": "database", "settings": settings})


def count_turns(during: Callable[[], object]) -> int:
    """Return how many turns of 5 ms another greenlet got while `work` ran."""
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.005)
            turns += 1

    other = gevent.spawn(turn)
    try:
        during()
        return turns
    finally:
        other.kill()
