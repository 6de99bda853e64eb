"""Tries on this machine what a start needs, and leaves nothing behind. `serve` and `check` find the same faults.

`preflight` tries the addresses, files and folders. `try_databases` opens what the edge itself opens when it is built:
on copies, so that nothing is created and a running edge is not disturbed.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from app.config import Config, ListenAddress, variable
from app.config.loops import is_loopback, loop_rule, loops
from app.domain.stored import StoreError
from app.inbound.admin_server import tls_context
from app.inbound.listener import BindError
from app.outbound.maxmind_geo import GeoDatabaseError, open_geo
from app.outbound.peewee_gateway import SqliteGatewayStore
from app.outbound.peewee_tokens import SqliteTokenStore

OTHERS_READ: Final = (
    *["etcd_password_file", "etcd_tls_ca", "etcd_tls_cert", "etcd_tls_key"],
    *["api_ca_file", "bgp_config"],
)
"""Files that other processes than the edge read. It starts without them."""
_ABSENT: Final = "does not exist"


Fault = str | BindError


@dataclass(slots=True)
class Findings:
    """What stands in the way of a start: lines, or errors of listeners, which know the setting that is at fault.

    `taken` are addresses on which something listens: a start fails, but while this edge runs it is the edge itself.
    `warnings` do not keep the edge from starting.
    """

    faults: list[Fault] = field(default_factory=list)
    taken: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def preflight(config: Config, passed: Container[ListenAddress] = ()) -> Findings:
    """Try the addresses, files and folders of a configuration; of frontends those without a socket `passed` to them."""
    found = Findings()
    for one in _listeners(config):
        if one.frontend and one.address in passed:
            continue
        error = _bind_error(one.address, one.kind)
        if error is not None:
            faults = found.taken if error.errno == errno.EADDRINUSE else found.faults
            message = f"{one.text}: {os.strerror(error.errno or 0)}"
            faults.append(BindError(message, one.setting, one.frontend))
    found.faults += [*_loops(config), *_folder_faults(config)]
    for name in OTHERS_READ:
        path = getattr(config, name)
        if path is not None and not os.access(path, os.R_OK):
            found.warnings.append(
                f"{variable(name)}={str(path)!r}: {'cannot be read' if os.path.exists(path) else _ABSENT}"
            )
    return found


# Addresses


class _Listener(NamedTuple):
    """An address to listen on, with the beginning of a fault and the setting that has it."""

    text: str
    address: ListenAddress
    setting: str
    frontend: str = ""
    kind: socket.SocketKind = socket.SOCK_STREAM


def _listeners(config: Config) -> Iterator[_Listener]:
    metrics, admin = config.metrics_listen_addr, config.admin_listen_addr
    yield _Listener(f"cannot listen on {metrics} (metrics)", metrics, "metrics_listen_addr")
    if admin is not None:
        yield _Listener(f"cannot listen on {admin} (admin)", admin, "admin_listen_addr")
    for address in config.dns_listen_addr:
        text, setting = f"cannot listen on {address}", "dns_listen_addr"
        yield _Listener(text, address, setting)
        yield _Listener(f"{text} (DNS over UDP)", address, setting, kind=socket.SOCK_DGRAM)
    for frontend in config.frontends:
        for address in frontend.listen:
            text = f"frontend {frontend.name}: cannot listen on {address}"
            yield _Listener(text, address, "listen_addr", frontend.name)


def _bind_error(address: ListenAddress, kind: socket.SocketKind) -> OSError | None:
    """Bind without listening, so that no client connects to it. Returns the error, if any."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address.host, address.port))
    except OSError as error:
        return error
    return None


def is_here(host: str) -> bool:
    """Return whether an IP address is one of this machine."""
    return is_loopback(host) or _bind_error(ListenAddress(host, 0), socket.SOCK_DGRAM) is None


def _loops(config: Config) -> Iterator[str]:
    """Yield a fault for each frontend on a wildcard that dials this machine. The rest is known without a machine."""
    pools = {pool.name: pool for pool in config.pools}
    frontends = config.frontends
    servers = [[server.address for server in pools[one.backend].servers] for one in frontends]
    for hop in loops([one.listen for one in frontends], servers, is_here):
        dialling, accepting = frontends[hop.dialling].name, frontends[hop.accepting].name
        address = servers[hop.dialling][hop.server]
        yield f"backend {frontends[hop.dialling].backend}: {address}: {loop_rule(dialling, accepting)}"


# Files


def _folder_faults(config: Config) -> Iterator[str]:
    written = [name for name in ("gateway_db_path", "binding_snapshot") if getattr(config, name) is not None]
    for name in written if config.db_url is not None else ["db_path", *written]:
        path = getattr(config, name)
        folder = path.absolute().parent
        if not os.path.isdir(folder):
            yield f"{variable(name)}={str(path)!r}: its directory {_ABSENT}"
        elif name in written and not os.access(folder, os.W_OK | os.X_OK):
            yield f"{variable(name)}={str(path)!r}: its directory cannot be written to"
        elif name in written and os.path.exists(path) and not os.access(path, os.W_OK):
            yield f"{variable(name)}={str(path)!r}: cannot be written to"
    if config.log_path is not None and (reason := _unwritable(config.log_path)):
        yield f"{variable('log_path')}={str(config.log_path)!r}: {os.strerror(reason)}"


def _unwritable(path: Path) -> int:
    """Return why a file cannot be opened for writing, as an errno, 0 if it can. Missing folders will be created."""
    nearest = path.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if nearest != path.absolute() and not os.path.isdir(nearest):
        return errno.ENOTDIR
    return 0 if os.access(nearest, os.W_OK) else errno.EACCES


# What the edge opens when it is built


def try_databases(config: Config) -> Iterator[Fault]:
    """Open the country database, the gateway's database and the certificate, and yield the faults of them."""
    try:
        open_geo(config.geoip_path)
    except GeoDatabaseError as error:
        yield geo_fault(config, error)
    if config.admin_listen_addr is not None and config.admin_tls_cert is not None:
        try:
            tls_context(config.admin_tls_cert, config.admin_tls_key)
        except BindError as error:
            yield error
    if os.path.isdir(config.gateway_db_path.absolute().parent):
        yield from _gateway_faults(config)


def geo_fault(config: Config, error: GeoDatabaseError) -> str:
    """Return the line for a country database that cannot be used."""
    return f"{variable('geoip_path')}={config.geoip_path!r}: {error}"


def _gateway_faults(config: Config) -> Iterator[str]:
    path, token_file = config.gateway_db_path, config.admin_token_file
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.db")
        try:
            for end in ("", "-wal"):
                if os.path.exists(f"{path}{end}"):
                    shutil.copyfile(f"{path}{end}", f"{copy}{end}")
            SqliteGatewayStore(copy).close()
            has_tokens = config.admin_listen_addr is None or bool(SqliteTokenStore(copy).load())
        except (StoreError, OSError) as error:
            yield str(error).replace(str(copy), str(path))
            return
    if not has_tokens and not os.access(token_file.absolute().parent, os.W_OK | os.X_OK):
        reason = errno.EACCES if os.path.isdir(token_file.absolute().parent) else errno.ENOENT
        yield f"the first token cannot be written to {token_file}: {os.strerror(reason)}"
