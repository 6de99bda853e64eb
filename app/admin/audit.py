"""The audit log: one line for each changing request, at any log level."""

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
    """The name of the request's token."""
    client: str
    action: str
    """The operationId in /openapi.json."""
    target: str
    """The changed object; empty if there is only one."""
    status: int
    result: str
    """`done`, or the problem."""


def audit_line(token: str, client: str, action: str, target: str, status: int, problem: str | None) -> AuditLine:
    """Return the audit line of a request, with the current time."""
    return AuditLine(rfc3339(time.time()), "admin", token, client, action, encodable(target), status, problem or "done")
