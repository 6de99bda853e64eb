"""HTTP server on ADMIN_LISTEN_ADDR: passes requests to the admin API's WSGI application, within limits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import pywsgi, ssl
from gevent.event import Event
from loguru import logger

from app.config import ListenAddress
from app.inbound.idle_clients import ClientPool
from app.inbound.listener import BindError
from app.inbound.status.server import ACCEPTED_AT_ONCE, HEADER_SECONDS, ErrorLog, ImpatientHandler

CLIENTS_AT_ONCE: Final = 64
_WRONG_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""What OpenSSL calls it, depending on the kinds of both keys."""
LATE_BODY_SECONDS: Final = 2.0
"""To read and discard the rest of a body the application did not read; the client may read the response meanwhile."""


class AdminServer:
    """Listens for the admin API. `has_stopped` is set before open requests are closed."""

    def __init__(self, address: ListenAddress, certificate: Path | None = None, key: Path | None = None) -> None:
        """With a `certificate` (PEM, may include the `key`), serve TLS only. Raises BindError if it cannot be used."""
        self._wanted = address
        self.has_stopped = Event()
        tls = {} if certificate is None else {"ssl_context": tls_context(certificate, key)}
        self._server = _Server(
            (address.host, address.port),
            None,
            log=None,
            error_log=ErrorLog("admin"),
            spawn=ClientPool(CLIENTS_AT_ONCE),
            handler_class=_Handler,
            environ={"SERVER_NAME": address.host},  # avoids a reverse DNS lookup
            **tls,
        )

    def start(self, application: Any) -> None:
        """Listen, and pass requests to a WSGI application. Raises BindError."""
        self._server.application = application
        try:
            self._server.start()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise BindError(f"cannot listen on {self._wanted} (admin): {reason}", "admin_listen_addr") from None

    def close(self) -> None:
        """Close the listener; requests in progress go on."""
        self.has_stopped.set()
        self._server.close()

    def stop(self) -> None:
        """Close the listener; requests in progress get one second."""
        self.has_stopped.set()
        self._server.stop(timeout=1)

    @property
    def address(self) -> ListenAddress:
        return ListenAddress(self._server.server_host, self._server.server_port)


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Load a certificate chain and its key. Raises BindError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        for path in (certificate, key):
            if path is not None and path.exists() and not path.is_file():
                raise OSError("is not a regular file")  # the open of a FIFO would never return
        context.load_cert_chain(certificate, key, password="")  # without one, OpenSSL would ask at the terminal
    except OSError as error:  # ssl.SSLError is one
        files = certificate if key is None else f"{certificate} with {key}"
        raise BindError(
            f"cannot load the admin API's TLS certificate from {files}: {_fault(error)}", "admin_tls_cert"
        ) from None
    return context


def _fault(error: OSError) -> str:
    """Return what is wrong with a certificate or its key. OpenSSL says "PEM lib" for most."""
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason in _WRONG_KEY:
        return "the key does not belong to the certificate"
    return "needs a certificate and its key in PEM, the key without a password"


class _Server(pywsgi.WSGIServer):  # type: ignore[misc]
    """Limits the time of a TLS handshake, which the greenlet of its client makes."""

    max_accept = ACCEPTED_AT_ONCE

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        with self.wrap_socket(client_socket, do_handshake_on_connect=False, **self.ssl_args) as secured:
            try:
                with gevent.Timeout(HEADER_SECONDS, TimeoutError()):
                    secured.do_handshake()
            except OSError as error:  # not TLS, an untrusted certificate, or the client is gone
                logger.debug("admin server: TLS handshake with {} failed: {}", address, error)
            else:
                self.handle(secured, address)


class _Handler(ImpatientHandler):
    """Serves one client, and bounds the time spent on a refused body."""

    wsgi_input: pywsgi.Input

    def get_environ(self) -> dict[str, Any]:
        """Add the path as it was sent: in PATH_INFO an escaped slash looks like any other."""
        return {**super().get_environ(), "REQUEST_URI": self.path}

    def run_application(self) -> None:
        try:
            super().run_application()
        finally:
            self._discard_rest()

    def _discard_rest(self) -> None:
        """Read and discard the unread body, as pywsgi does after it, but for at most LATE_BODY_SECONDS."""
        try:
            with gevent.Timeout(LATE_BODY_SECONDS, TimeoutError()):
                self.wsgi_input._discard()
        except OSError:  # it did not come in time, or the client is gone
            self.close_connection = True
            self.wsgi_input = pywsgi.Input(self.rfile, 0)
