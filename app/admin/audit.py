"""The audit log: one line for each request that changes something, written whatever the log's level."""

from __future__ import annotations

import time

import msgspec

from app.admin.problems import encodable
from app.outbound.json_log import rfc3339


class AuditLine(msgspec.Struct):
    """The fields of an audit line, in order."""

    ts: str
    event: str
    token: str
    """The name of the token that was shown."""
    client: str
    action: str
    """The operationId of the API's description."""
    target: str
    """What it was done to; empty where there is but one of it."""
    status: int
    result: str
    """`done`, or why not."""


def audit_line(token: str, client: str, action: str, target: str, status: int, problem: str | None) -> AuditLine:
    """Return the line of a request answered now."""
    return AuditLine(rfc3339(time.time()), "admin", token, client, action, encodable(target), status, problem or "done")
