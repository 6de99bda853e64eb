#!/usr/bin/env python3
"""Take the screenshots in docs/images: an edge with backends and clients all over the world, in headless Chromium.

Everything runs on this machine, on ports that the kernel chooses. Needs the development environment (scripts/setup dev)
and Debian's chromium; fonts-inter and fonts-jetbrains-mono give the pictures their present look.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
if VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), __file__, *sys.argv[1:]])
sys.path.insert(0, str(ROOT))

from gevent import monkey

monkey.patch_all()

import argparse
import contextlib
import ipaddress
import random
import socket
import tempfile
from typing import Any

import gevent
from gevent.server import StreamServer

from app.outbound.maxmind_geo import SHIPPED_DATABASE, MaxmindGeo
from app.wire import proxy_protocol
from tests.admin_client import Admin, admin_of, admin_variables
from tests.browser import Page, open_browser
from tests.harness import EdgeProcess, row, write_backends

PICTURES = ROOT / "docs" / "images"
CITIES = {
    # id: country, region, more columns
    "gru": ("BR", "sa", {"weight": 2}), "bog": ("CO", "sa", {}), "nyc": ("US", "us", {}), "lax": ("US", "us", {}),
    "yyz": ("CA", "us", {"weight": 0}), "fra": ("DE", "eu", {}), "cdg": ("FR", "eu", {}), "mad": ("ES", "eu", {}),
    "jnb": ("ZA", "af", {}), "dxb": ("AE", "me", {}), "bom": ("IN", "ap", {}), "sin": ("SG", "ap", {"hard_limit": 3}),
    "nrt": ("JP", "ap", {}), "syd": ("AU", "oc", {}),
}  # fmt: skip
CLIENTS = {
    "BR": 26, "AR": 8, "CL": 5, "CO": 6, "US": 24, "CA": 6, "MX": 7, "GB": 9, "FR": 10, "DE": 13, "ES": 6, "PL": 5,
    "NG": 4, "ZA": 7, "EG": 3, "AE": 5, "IN": 14, "ID": 5, "SG": 7, "JP": 12, "KR": 5, "AU": 8, "NZ": 2,
}  # fmt: skip
"""Number of clients by country."""
SOFT_LIMIT = 30
HELLO = '''"""Greets the caller."""


def handle(request, context):
    name = request.args.get("name", "world")
    return {"hello": name, "you": request.remote_addr}
'''
BROKEN = '''"""Orders of the last hour."""

from decimal import Decimal

PRICES = {"book": Decimal("12.50"), "pen": Decimal("1,20")}


def handle(request, context):
    return {"total": str(sum(PRICES.values()))}
'''


def addresses_of(country: str, count: int, chance: random.Random, geo: MaxmindGeo) -> list[str]:
    """Return random addresses of a country, according to the country database in app/data."""
    found: list[str] = []
    while len(found) < count:
        address = str(ipaddress.IPv4Address(chance.randrange(1 << 24, 224 << 24)))
        place = geo.resolve(address)
        if place is not None and place.country == country:
            found.append(address)
    return found


def serve_backend(sock: socket.socket) -> None:
    """Respond to every request with data of random length."""
    with contextlib.suppress(OSError):
        while sock.recv(4096):
            sock.sendall(b"x" * random.randrange(500, 60_000))


def run_client(edge: tuple[str, int], address: str, chance: random.Random) -> None:
    """Open connections one after another, and send a few requests on each."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(edge, 5) as sock:
            source = (address, chance.randrange(1024, 65535))
            sock.sendall(proxy_protocol.encode(1, source, ("192.0.2.1", 443)))
            for _ in range(chance.randrange(1, 8)):
                sock.sendall(b"more")
                sock.recv(1 << 20)
                gevent.sleep(chance.expovariate(2))
        gevent.sleep(chance.expovariate(0.5))


def run_caller(web: tuple[str, int], address: str, path: str, chance: random.Random) -> None:
    """Send requests to an endpoint in a loop."""
    request = f"GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n".encode()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(web, 5) as sock:
            sock.sendall(proxy_protocol.encode(1, (address, 4711), ("192.0.2.1", 80)) + request)
            while sock.recv(4096):
                pass
        gevent.sleep(chance.expovariate(3))


def start_backends() -> dict[str, StreamServer]:
    servers = {}
    for name in CITIES:
        servers[name] = StreamServer(("127.0.0.1", 0), lambda sock, _address: serve_backend(sock), backlog=512)
        servers[name].start()
    return servers


def start_edge(folder: Path, ports: dict[str, int]) -> EdgeProcess:
    rows = [
        row(name, ports[name], country=country, region=region, soft_limit=SOFT_LIMIT, **more)
        for name, (country, region, more) in CITIES.items()
    ]
    write_backends(folder / "routing.db", rows)
    check = {"type": "tcp", "interval": "1s"}
    config = {
        "frontends": [
            {"name": "nearest", "listen": "127.0.0.1:0", "backend": "cities", "algorithm": "geo",
             "proxy_protocol_from": ["127.0.0.0/8"]},
            {"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True,
             "proxy_protocol_from": ["127.0.0.0/8"]},
        ],
        "backends": [{"name": "cities", "app": "", "health_check": check}],
    }  # fmt: skip
    variables = {name: str(value) for name, value in admin_variables(folder).items()}
    return EdgeProcess(folder, folder / "routing.db", "", {**variables, "GEOIP_PATH": "", "REGION": "sa"}, config)


def create_objects(admin: Admin, folder: Path) -> None:
    """Create endpoints, versions and a service."""
    admin.call("POST", "/api/services", {
        "name": "main", "kind": "database", "settings": {"engine": "sqlite", "path": str(folder / "shop.db")},
    })  # fmt: skip
    for name, path in (("hello", "/hello"), ("orders", "/orders/<int:order>"), ("search", "/search")):
        admin.call("POST", "/api/endpoints", {"id": name, "path": path})
        for words in ("world", "everybody"):
            admin.call("POST", f"/api/endpoints/{name}/deploy", {"source": HELLO.replace("world", words)})


def open_page(page: Page, url: str, token: str) -> None:
    page.open(url)
    page.fill("#token", token)
    page.press("Enter")
    page.wait_for("#age", "live")


def take_pictures(page: Page) -> None:
    """Take the page in light and dark, the deployment form, and the view on a phone."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page.prefer(prefers_color_scheme=scheme)
        page.resize(1360, 1150)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(PICTURES / f"page-{scheme}.png")
    page.prefer(prefers_color_scheme="light")
    page.click("#endpoint-rows tr:nth-child(2) button")
    page.wait_for("#version-rows tr")
    page.fill("#source", BROKEN)
    page.click("#deploy")
    page.wait_for("#traceback")
    page.resize(1360, 960)
    page.evaluate("document.getElementById('endpoints').scrollIntoView()")
    page.screenshot(PICTURES / "page-endpoints.png")
    page.resize(390, 844, 2)
    page.prefer(prefers_color_scheme="dark")
    page.evaluate("scrollTo(0, 0)")
    gevent.sleep(0.3)
    page.screenshot(PICTURES / "page-phone.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=130, help="time that the edge runs before [%(default)s]")
    seconds = parser.parse_args().seconds
    chance, geo = random.Random(7), MaxmindGeo(SHIPPED_DATABASE)
    servers = start_backends()
    with tempfile.TemporaryDirectory() as name, open_browser(Path(name)) as page:
        folder = Path(name)
        edge = start_edge(folder, {city: server.server_port for city, server in servers.items()})
        try:
            admin = admin_of(edge, folder)
            create_objects(admin, folder)
            open_page(page, "http://{}:{}/".format(*admin.address), admin.token)
            callers: list[Any] = [
                gevent.spawn(run_client, edge.frontends["nearest"][0], address, chance)
                for country, count in CLIENTS.items()
                for address in addresses_of(country, count, chance, geo)
            ]
            callers += [
                gevent.spawn(run_caller, edge.frontends["web"][0], address, path, chance)
                for country, path in (("BR", "/hello"), ("PE", "/search"), ("UY", "/hello"))
                for address in addresses_of(country, 2, chance, geo)
            ]
            gevent.sleep(seconds * 0.7)
            servers["nrt"].stop()
            admin.call("POST", "/api/backends/mad/drain")
            gevent.sleep(seconds * 0.3)
            take_pictures(page)
            gevent.killall(callers)
        finally:
            edge.kill()
    print(*sorted(str(path.relative_to(ROOT)) for path in PICTURES.glob("page-*.png")), sep="\n")


main()
