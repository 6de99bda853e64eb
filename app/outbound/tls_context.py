"""What encrypts connections to services, for the words that a service's settings have for it."""

from __future__ import annotations

import ssl


def tls_context(setting: str) -> ssl.SSLContext | None:
    """Return a client's context: None for `off`; `require` asks for no certificate, anything else verifies it."""
    if setting == "off":
        return None
    context = ssl.create_default_context()
    if setting == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
