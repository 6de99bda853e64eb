"""Decisions about a request and its response: retry, upgrade, keep, deliver."""

from __future__ import annotations

from itertools import product

import pytest

from app.wire.http1 import RequestHead, ResponseHead, parse_request, parse_response
from app.wire.http1_rules import delivery_of, may_keep, may_send_again, may_upgrade, switch_fault


def request(*lines: str, method: str = "GET", version: str = "1.1") -> RequestHead:
    return parse_request("\r\n".join([f"{method} / HTTP/{version}", "Host: a", *lines, "", ""]).encode())


def response(*lines: str, method: bytes = b"GET") -> ResponseHead:
    return parse_response("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode(), method)


SIZED = response("Content-Length: 2")
CHUNKED = response("Transfer-Encoding: chunked")
UNTIL_CLOSE = response()

# Retries


def test_a_request_is_sent_again_only_on_a_reused_silent_connection_and_while_it_is_whole():
    for reused, whole, heard in product((True, False), repeat=3):
        again = may_send_again(b"GET", bytes_sent=9, is_reused=reused, is_whole=whole, has_heard=heard)
        assert again == (reused and whole and not heard)


@pytest.mark.parametrize(
    ("method", "bytes_sent", "again"),
    [
        *[(method, 9, True) for method in (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")],
        *[(method, 9, False) for method in (b"POST", b"PATCH", b"LOCK", b"get")],
        (b"POST", 0, True),
    ],
)
def test_what_is_not_idempotent_is_sent_again_only_when_nothing_of_it_was_sent(method, bytes_sent, again):
    decided = may_send_again(method, bytes_sent=bytes_sent, is_reused=True, is_whole=True, has_heard=False)
    assert decided == again


# Other protocols


@pytest.mark.parametrize(
    ("lines", "may"),
    [
        (["Connection: upgrade", "Upgrade: websocket"], True),
        (["Upgrade: websocket"], False),
        (["Connection: upgrade", "Upgrade: h2c"], False),
        (["Connection: upgrade, HTTP2-Settings", "Upgrade: websocket, h2c"], False),
        ([], False),
    ],
)
def test_an_upgrade_is_passed_on_unless_it_is_to_http_2_in_the_clear(lines, may):
    assert may_upgrade(request(*lines)) == may


def test_a_switch_needs_a_request_for_it_that_was_read_whole():
    asked, plain = request("Connection: upgrade", "Upgrade: websocket"), request()
    agreed, other = (response(f"Connection: upgrade\r\nUpgrade: {one}") for one in ("WebSocket", "words"))
    assert switch_fault(asked, agreed, is_request_read=True) is None
    assert switch_fault(asked, agreed, is_request_read=False) == "switching_within_request"
    assert switch_fault(plain, agreed, is_request_read=True) == "switching_without_upgrade"
    assert switch_fault(asked, other, is_request_read=True) == "switching_without_upgrade", "not asked for"


# The client's connection


def test_the_edges_own_response_keeps_a_connection_of_http_1_1_that_is_in_step():
    assert may_keep(request(), is_request_read=True, is_closing=False)
    assert not may_keep(request(), is_request_read=False, is_closing=False)
    assert not may_keep(request(), is_request_read=True, is_closing=True)
    assert not may_keep(request("Connection: close"), is_request_read=True, is_closing=False)
    assert not may_keep(request("Connection: keep-alive", version="1.0"), is_request_read=True, is_closing=False)


@pytest.mark.parametrize(
    ("asked", "given", "delivery"),
    [
        (request(), SIZED, (True, b"", False, False)),
        (request(), CHUNKED, (True, b"", True, False)),
        (request(), UNTIL_CLOSE, (False, b"close", False, False)),
        (request("Connection: close"), SIZED, (False, b"close", False, False)),
        (request(version="1.0"), SIZED, (False, b"close", False, False)),
        (request("Connection: keep-alive", version="1.0"), SIZED, (True, b"keep-alive", False, False)),
        (request("Connection: keep-alive", version="1.0"), CHUNKED, (False, b"close", False, True)),
    ],
    ids=["sized", "chunked", "until close", "asked to close", "1.0", "1.0 kept", "1.0 unwrapped"],
)
def test_a_response_is_delivered_in_the_form_that_the_client_understands(asked, given, delivery):
    assert tuple(delivery_of(asked, given, is_request_read=True, is_closing=False)) == delivery


def test_a_delivery_closes_when_the_request_was_not_read_or_the_connection_is_closing():
    for read, closing in product((True, False), repeat=2):
        delivery = delivery_of(request(), SIZED, is_request_read=read, is_closing=closing)
        assert delivery.keeps == (read and not closing) == (delivery.connection_option == b"")
