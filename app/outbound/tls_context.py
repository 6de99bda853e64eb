"""What encrypts connections to services, for the words that a service's settings have for it."""

from __future__ import annotations

import ssl
from typing import Any


class _TidyContext(ssl.SSLContext):
    """Closes the socket of a handshake that fails. Otherwise nobody would: the caller's own is detached by then."""

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
    """Return a client's context: None for `off`; `require` asks for no certificate, anything else verifies it."""
    if setting == "off":
        return None
    context = _TidyContext(ssl.PROTOCOL_TLS_CLIENT)
    if setting == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    return context
