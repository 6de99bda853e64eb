"""TLS contexts for connections to services, by the `tls` setting of the service."""

from __future__ import annotations

import ssl
from typing import Any


class _TidyContext(ssl.SSLContext):
    """Closes the socket after a failed handshake. The caller cannot: its socket object is detached by then."""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        options["do_handshake_on_connect"] = False
        sock: ssl.SSLSocket = super().wrap_socket(*arguments, **options)
        try:
            sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        return sock


def tls_context(setting: str) -> ssl.SSLContext | None:
    """Return a client context: None for `off`, without verification for `require`, otherwise with verification."""
    if setting == "off":
        return None
    context = _TidyContext(ssl.PROTOCOL_TLS_CLIENT)
    if setting == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    return context
