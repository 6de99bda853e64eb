"""TLS to services: `require` accepts any certificate, `verify` those of trusted authorities for the right host."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.services.supervision import Services
from actors.supervisor import Supervisor
from app.gateway.clients import CLIENTS
from app.outbound.service_connectors import connector
from tests.integration.service_peers import Mail, Mariadb, Peer, Postgresql, Redis, running, start_up


class _Encrypted(Peer):
    """A server with a self-signed certificate for 127.0.0.1."""

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    def prepare(self) -> None:
        super().prepare()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", str(self.key), "-out", str(self.certificate), "-days", "2", "-subj", "/CN=test",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, capture_output=True, **self.as_whom(),
        )  # fmt: skip


class EncryptedPostgresql(_Encrypted, Postgresql):
    def command(self) -> list[str]:
        return [*super().command(), "--ssl=on", f"--ssl_cert_file={self.certificate}", f"--ssl_key_file={self.key}"]


class EncryptedMariadb(_Encrypted, Mariadb):
    def command(self) -> list[str]:
        return [*super().command(), f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}",
                "--require-secure-transport=ON"]  # fmt: skip


class EncryptedRedis(_Encrypted, Redis):
    def command(self) -> list[str]:
        return [
            *super().command(), "--port", "0", "--tls-port", str(self.port), "--tls-cert-file", str(self.certificate),
            "--tls-key-file", str(self.key), "--tls-ca-cert-file", str(self.certificate), "--tls-auth-clients", "no",
        ]  # fmt: skip


class EncryptedMail(_Encrypted, Mail):
    mode = "starttls"

    def command(self) -> list[str]:
        return [*super().command(), str(self.certificate), str(self.key), self.mode]


class MailEncryptedFromTheStart(EncryptedMail):
    mode = "tls"


ENCRYPTED = (EncryptedPostgresql, EncryptedMariadb, EncryptedRedis, EncryptedMail, MailEncryptedFromTheStart)


@pytest.fixture(scope="module", params=ENCRYPTED,
                ids=lambda make: make.__name__)  # fmt: skip
def peer(request) -> Iterator[Peer]:
    with running(request.param) as one:
        yield one


@pytest.fixture
def services() -> Iterator[Services]:
    every = Services(Supervisor(on_give_up=lambda name: None), connector)
    yield every
    every.stop_all(within_seconds=0.1)


def verifying(peer: Peer) -> str:
    """Return the setting that verifies certificates."""
    return peer.mode if isinstance(peer, EncryptedMail) else "verify"


def use(services: Services, peer: Peer) -> None:
    address, spec = services.address(peer.kind, "main")
    client: Any = CLIENTS[peer.kind]("main", address, spec.timeout_seconds)
    for _ in range(5):
        match peer.kind:
            case "database":
                assert client.query("SELECT 1 AS one") == [{"one": 1}]
            case "cache":
                client.set("key", b"x" * 100_000)
                assert client.get("key") == b"x" * 100_000
            case "email":
                client.send("ann@example.com", "x", "y")


def test_a_certificate_of_a_known_authority_is_accepted(services, peer, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(peer.certificate))
    start_up(services, peer.spec(tls=verifying(peer)))
    use(services, peer)
    counts = services.describe_one("main").counts
    assert counts.opened == counts.connected, "what TLS sends on its own account is not taken for the end"


def test_a_certificate_of_an_unknown_authority_is_refused(services, peer):
    view = services.start(peer.spec(tls=verifying(peer)))
    assert not view.counts.is_up
    assert "certificate" in view.counts.reason


def test_a_certificate_for_another_host_is_refused(services, peer, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(peer.certificate))
    view = services.start(peer.spec(tls=verifying(peer), host="localhost"))
    assert not view.counts.is_up


def test_encryption_alone_asks_for_no_authority(services, peer):
    if peer.kind == "email":
        pytest.skip("mail is encrypted and verified, or neither")
    start_up(services, peer.spec(tls="require"))
    use(services, peer)


def test_a_server_that_insists_on_encryption_turns_plain_clients_away(services, peer):
    if peer.engine == "postgresql":
        pytest.skip("it does not insist here")
    view = services.start(peer.spec(tls="off"))
    assert not view.counts.is_up
