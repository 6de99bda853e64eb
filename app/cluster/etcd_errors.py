"""The errors of etcd, in classes that say what a caller can do: try again, make room, or change the settings."""

from __future__ import annotations

from typing import Final

import urllib3

TEMPORARY_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
_USER_AND_PASSWORD: Final = "EDGEPROXY_ETCD_USER and EDGEPROXY_ETCD_PASSWORD_FILE"
_DENIALS: Final = {
    "user name is empty": f"it has users, so {_USER_AND_PASSWORD} must be set",
    "authentication failed": f"check {_USER_AND_PASSWORD}",
    "authentication is not enabled": f"it has no users, so {_USER_AND_PASSWORD} must not be set",
    "permission denied": "the role of EDGEPROXY_ETCD_USER must allow to read and write /edgeproxy/",
}
"""Parts of etcd's messages about users, and what to do. No retry succeeds before somebody has done it."""
_NO_SPACE: Final = "space exceeded"


class EtcdError(Exception):
    """A call to etcd failed. `may_have_happened` says whether a write may have been executed nevertheless."""

    def __init__(self, text: str, *, may_have_happened: bool = False) -> None:
        super().__init__(text)
        self.may_have_happened = may_have_happened


class EtcdUnavailable(EtcdError):
    """No endpoint responded, or none had a leader. A later call may succeed."""


class EtcdUntrusted(EtcdUnavailable):
    """A certificate was refused, by this side or by etcd. Another endpoint may have a better one."""


class Silence(EtcdUnavailable):
    """A watch received nothing for too long."""


class EtcdRefused(EtcdError):
    """etcd refused a request."""


class EtcdDenied(EtcdRefused):
    """etcd refused the user, the password or the permission."""


class EtcdFull(EtcdRefused):
    """etcd has raised the alarm NOSPACE and refuses to grow."""


class Compacted(EtcdError):
    """The requested revision was compacted, so changes since then are lost."""


def refusal(endpoint: str, status: int, message: str) -> EtcdError:
    """Return the error for a response with an HTTP status other than 200 and the message of etcd."""
    text = f"{endpoint}: {message or f'HTTP status {status}'}"
    if _NO_SPACE in message:  # its status, 429, is also that of too many requests
        return EtcdFull(f"{text}: etcd has the alarm NOSPACE: compact it, defragment it, and disarm the alarm")
    for part, advice in _DENIALS.items():
        if part in message:
            return EtcdDenied(f"{text}: {advice}")
    if status in TEMPORARY_STATUSES:
        return EtcdUnavailable(text, may_have_happened=True)
    return Compacted(text) if "compacted" in message else EtcdRefused(text)


def unavailable(endpoint: str, text: str, error: urllib3.exceptions.HTTPError) -> EtcdUnavailable:
    """Return the error for a call without a response."""
    kind = EtcdUntrusted if isinstance(error, urllib3.exceptions.SSLError) else EtcdUnavailable
    # NewConnectionError is a ConnectTimeoutError.
    was_sent = not isinstance(error, urllib3.exceptions.ConnectTimeoutError | urllib3.exceptions.SSLError)
    return kind(f"{endpoint}: {text}", may_have_happened=was_sent)
