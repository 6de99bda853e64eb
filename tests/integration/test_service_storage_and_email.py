"""Storage and email behind service actors: moto's S3 server and aiosmtpd."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Iterator

import gevent
import pytest

from actors.services.supervision import Services
from actors.supervisor import Supervisor
from app.domain.endpoints import DEFAULT_BODY_BYTES
from app.domain.service_settings import DEFAULT_MAX_BYTES
from app.gateway.clients import Email, ServiceDown, ServiceError, Storage
from app.outbound.service_connectors import connector
from tests.admin_client import admin_of, admin_variables
from tests.harness import eventually
from tests.integration.service_peers import S3, Mail, running, start_up


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running(S3) as one:
        yield one


@pytest.fixture(scope="module")
def mail_server() -> Iterator[Mail]:
    with running(Mail) as one:
        yield one


@pytest.fixture
def services() -> Iterator[Services]:
    every = Services(Supervisor(on_give_up=lambda name: None), connector)
    yield every
    every.stop_all(within_seconds=0.1)


@pytest.fixture
def storage(services, s3) -> Storage:
    spec = s3.spec("files", connections=3, max_object_bytes=8_000_000)
    start_up(services, spec)
    return Storage(spec.name, services.address("storage", spec.name)[0], spec.timeout_seconds)


@pytest.fixture
def email(services, mail_server) -> Email:
    spec = mail_server.spec("post")
    start_up(services, spec)
    return Email(spec.name, services.address("email", spec.name)[0], spec.timeout_seconds)


# Storage


def test_an_object_comes_back_as_it_was_put(storage):
    data = bytes(range(256)) * 4000
    storage.put("pictures/ä b.jpg", data, "image/jpeg")
    assert storage.get("pictures/ä b.jpg") == data
    info = storage.head("pictures/ä b.jpg")
    assert info is not None
    assert (info.key, info.size_bytes, info.content_type) == ("pictures/ä b.jpg", len(data), "image/jpeg")
    assert info.etag == hashlib.md5(data).hexdigest()
    assert abs(info.modified_at - time.time()) < 60
    storage.put("pictures/ä b.jpg", "text")
    assert storage.get("pictures/ä b.jpg") == b"text"


def test_a_missing_object_is_none_and_may_be_deleted(storage):
    assert (storage.get("nothing"), storage.head("nothing")) == (None, None)
    storage.put("something", b"")
    assert storage.get("something") == b""
    storage.delete("something")
    storage.delete("something")
    assert storage.get("something") is None


def test_a_listing_comes_in_pages(storage):
    for number in range(5):
        storage.put(f"pages/{number}/x", b"x" * number)
    first = storage.list("pages/", limit=3)
    assert [(one.key, one.size_bytes) for one in first] == [("pages/0/x", 0), ("pages/1/x", 1), ("pages/2/x", 2)]
    assert [one.key for one in storage.list("pages/", after=first[-1].key)] == ["pages/3/x", "pages/4/x"]
    assert storage.list("no such pages/") == []


def test_an_object_over_the_limit_is_refused_both_ways(storage, services, s3):
    storage.put("large", bytes(6_000_000))  # larger than a part of a multipart upload
    with pytest.raises(ServiceError, match="more than 8000000 bytes"):
        storage.put("too large", bytes(8_000_001))
    small = s3.spec("small", max_object_bytes=1000)
    start_up(services, small)
    with pytest.raises(ServiceError, match="more than 1000 bytes"):
        Storage("small", services.address("storage", "small")[0], 5).get("large")
    assert len(storage.get("large") or b"") == 6_000_000


KEEPS = """
def handle(request, context):
    files = context.storage("files")
    files.put("upload", request.data)
    return files.get("upload")
"""


def test_a_request_carries_the_largest_object_where_its_endpoint_allows_the_size(edge, s3, tmp_path):
    config = {"frontends": [{"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True}]}
    proxy = edge(config=config, **admin_variables(tmp_path))
    admin = admin_of(proxy, tmp_path)

    def upload(size: int) -> tuple[int, int]:
        connection = http.client.HTTPConnection(*proxy.address, timeout=30)
        connection.request("POST", "/upload", bytes(size))
        response = connection.getresponse()
        try:
            return response.status, len(response.read())
        finally:
            connection.close()

    service = {"name": "files", "kind": "storage", "settings": s3.settings()}
    assert admin.call("POST", "/api/services", service).status == 201
    endpoint = {"path": "/upload", "methods": ["POST"]}
    assert admin.call("POST", "/api/endpoints", {"id": "upload", **endpoint}).status == 201
    assert admin.call("POST", "/api/endpoints/upload/deploy", {"source": KEEPS}).status == 200
    assert upload(DEFAULT_BODY_BYTES) == (200, DEFAULT_BODY_BYTES)
    assert upload(DEFAULT_BODY_BYTES + 1)[0] == 413
    larger = {**endpoint, "max_body_bytes": DEFAULT_MAX_BYTES + 1}
    assert admin.call("PUT", "/api/endpoints/upload", larger).status == 200
    assert upload(DEFAULT_MAX_BYTES) == (200, DEFAULT_MAX_BYTES)
    assert upload(DEFAULT_MAX_BYTES + 1)[0] == 500
    line = eventually(lambda: proxy.event("endpoint upload: version 1 failed"))
    assert "more than 16777216 bytes" in line["event"]


def test_objects_are_read_concurrently(storage):
    storage.put("one", b"1")
    together = [gevent.spawn(storage.get, "one") for _ in range(30)]
    gevent.joinall(together, raise_error=True)
    assert {one.value for one in together} == {b"1"}


def test_with_a_missing_bucket_the_service_is_down(services, s3):
    view = services.start(s3.spec("lost", bucket="elsewhere"))
    assert (view.counts.is_up, view.counts.reason) == (False, "there is no bucket elsewhere")
    with pytest.raises(ServiceDown, match="service lost: there is no bucket elsewhere"):
        Storage("lost", services.address("storage", "lost")[0], 5).get("x")


# Email


def test_a_mail_arrives_as_it_was_sent(email, mail_server):
    refused = email.send(["ann@example.com", "bob@example.com"], "Grüße", "Hallo ✓\n.\nEnde", "<b>Hallo</b>")
    assert refused == {}
    mail = mail_server.mails()[-1]
    assert (mail["from"], mail["to"]) == ("shop@example.org", ["ann@example.com", "bob@example.com"])
    assert (mail["text"], mail["html"]) == ("Hallo ✓\n.\nEnde\n", "<b>Hallo</b>\n")
    headers = mail["headers"]
    assert (headers["Subject"], headers["To"]) == ("Grüße", "ann@example.com, bob@example.com")
    assert headers["Message-ID"].endswith("@example.org>")
    assert headers["Date"]


def test_sender_and_address_for_replies_can_be_chosen(email, mail_server):
    email.send("ann@example.com", "x", "y", sender="other@example.org", reply_to="help@example.org")
    mail = mail_server.mails()[-1]
    assert (mail["from"], mail["headers"]["From"]) == ("other@example.org", "other@example.org")
    assert mail["headers"]["Reply-To"] == "help@example.org"


def test_a_refused_recipient_is_reported_and_the_others_get_theirs(email, mail_server):
    refused = email.send(["nobody@example.com", "ann@example.com"], "x", "y")
    assert refused == {"nobody@example.com": "550 no such mailbox"}
    assert mail_server.mails()[-1]["to"] == ["ann@example.com"]


def test_a_mail_refused_by_all_recipients_is_an_error_and_the_connection_stays(email, services):
    with pytest.raises(ServiceError, match=r"nobody@example\.com: 550 no such mailbox"):
        email.send("nobody@example.com", "x", "y")
    assert email.send("ann@example.com", "x", "y") == {}
    assert services.describe_one("post").counts.down == 0


def test_a_line_break_in_a_header_is_refused(email, mail_server):
    before = len(mail_server.mails())
    for to, subject in (("ann@example.com", "x\r\nBcc: eve@example.com"), ("ann@example.com\nBcc: eve@x.org", "x")):
        with pytest.raises(ServiceError):
            email.send(to, subject, "y")
    assert len(mail_server.mails()) == before


def test_with_a_wrong_password_the_service_is_down_and_the_password_is_not_shown(services, mail_server):
    view = services.start(mail_server.spec("locked", password="open sesame"))
    assert not view.counts.is_up
    assert view.counts.reason.startswith("535")
    assert "sesame" not in repr(view)
    with pytest.raises(ServiceDown, match="535"):
        services.test("locked")
