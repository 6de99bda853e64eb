"""A connection to a mail server, through the standard library's smtplib."""

from __future__ import annotations

import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from app.domain.service_calls import Ping, SendEmail
from app.domain.service_errors import ConnectionLost, OperationRefused
from app.domain.services import ServiceSpec
from app.outbound.service_socket import open_socket
from app.outbound.stale_socket import StaleSocket
from app.outbound.tls_context import tls_context


class SmtpConnection:
    """A ServiceConnection, logged in. Has no timeout of its own; a gevent.Timeout of the caller interrupts it."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Connect, start TLS and log in, according to the settings. Raises ConnectionLost."""
        self._sender: str = spec.settings["sender"]
        context = tls_context("verify") if spec.settings["tls"] == "tls" else None
        self._client = _Client(spec.settings["host"], context, spec.connect_timeout_seconds)
        try:
            self._greet(spec)
        except BaseException as error:
            self.close()
            if isinstance(error, smtplib.SMTPException | OSError):
                raise ConnectionLost(_reason(error)) from None
            raise
        assert self._client.sock is not None
        self._end = StaleSocket(self._client.sock.fileno())

    def _greet(self, spec: ServiceSpec) -> None:
        settings = spec.settings
        code, words = self._client.connect(settings["host"], settings["port"])
        if code != 220:
            raise ConnectionLost(_response_text(code, words))
        if settings["tls"] == "starttls":
            self._client.starttls(context=tls_context("verify"))
        self._client.ehlo_or_helo_if_needed()
        if settings["user"] is not None:
            self._client.login(settings["user"], spec.secret("password") or "")

    def call(self, operation: object) -> object:
        try:
            match operation:
                case SendEmail():
                    return self._send(operation)
                case Ping():
                    self._client.noop()
                    return None
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            # SMTPException is an OSError, so responses of the server are distinguished first.
            if isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected):
                raise OperationRefused(_reason(error)) from None
            raise ConnectionLost(_reason(error)) from None
        except ValueError as error:  # a line break in a header, or an invalid address
            raise OperationRefused(str(error)) from None
        raise OperationRefused(f"an email service does not support {type(operation).__name__}")

    def _send(self, mail: SendEmail) -> dict[str, str]:
        sender = mail.sender or self._sender
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, ", ".join(mail.recipients), mail.subject
        if mail.reply_to is not None:
            message["Reply-To"] = mail.reply_to
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        message.set_content(mail.text)
        if mail.html is not None:
            message.add_alternative(mail.html, subtype="html")
        refused = self._client.send_message(message, sender, list(mail.recipients))
        return {recipient: _response_text(*response) for recipient, response in refused.items()}

    def is_stale(self) -> bool:
        return self._client.sock is None or bool(self._end)

    def close(self) -> None:
        self._client.close()


class _Client(smtplib.SMTP):
    """Connects with open_socket; with `context`, uses TLS from the start."""

    def __init__(self, host: str, context: ssl.SSLContext | None, connect_timeout_seconds: float) -> None:
        super().__init__(local_hostname=socket.gethostname())  # otherwise it looks up the FQDN
        self._host = host
        """The name that the certificate must have after STARTTLS."""
        self._context = context
        self._connect_timeout_seconds = connect_timeout_seconds

    def _get_socket(self, host: str, port: int, _timeout: object) -> socket.socket:
        sock = open_socket(host, port, self._connect_timeout_seconds)
        return sock if self._context is None else self._context.wrap_socket(sock, server_hostname=host)


def _response_text(code: int, words: bytes | str) -> str:
    return f"{code} {words.decode(errors='replace') if isinstance(words, bytes) else words}"


def _reason(error: BaseException) -> str:
    match error:
        case smtplib.SMTPRecipientsRefused(recipients=recipients):
            return "; ".join(f"{one}: {_response_text(*response)}" for one, response in recipients.items())
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=words):
            return _response_text(code, words)
    return str(error) or repr(error)
