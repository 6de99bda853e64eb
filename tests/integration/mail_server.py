"""A mail server in a process of its own: `python mail_server.py PORT FILE USER PASSWORD [CERTIFICATE KEY MODE]`.

MODE is starttls or tls. It accepts mail after a login and writes each message as a line of JSON. It refuses the
recipient nobody.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from email import message_from_bytes, policy
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword


class Recorder:
    """The hooks for aiosmtpd."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def handle_RCPT(
        self, _server: object, _session: object, envelope: Envelope, address: str, _options: object
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: object, _session: object, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail: Any = message_from_bytes(envelope.content.replace(b"\r\n", b"\n"), policy=policy.default)
        html = mail.get_body(("html",))
        line = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": dict(mail.items()),
            "text": mail.get_body(("plain",)).get_content(),
            "html": html and html.get_content(),
        }
        with open(self._path, "a") as file:
            print(json.dumps(line), file=file)
        return "250 OK"


async def main() -> None:
    port, path, user, password, *certificate = sys.argv[1:]
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate[:2])
    is_encrypted_later = certificate[2:] == ["starttls"]

    def authenticate(_server: object, _session: object, _envelope: object, _mechanism: str, data: object) -> AuthResult:
        wanted = LoginPassword(user.encode(), password.encode())
        return AuthResult(success=isinstance(data, LoginPassword) and data == wanted, handled=False)

    def protocol() -> SMTP:
        return SMTP(
            Recorder(path),
            hostname="localhost",
            authenticator=authenticate,
            auth_required=True,
            auth_require_tls=is_encrypted_later,
            tls_context=context if is_encrypted_later else None,
            require_starttls=is_encrypted_later,
        )

    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", int(port), ssl=None if is_encrypted_later else context
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
