"""The names that authors of handlers import: request and response types, service errors, transaction statements.

A handler is one module with::

    def handle(request: Request, context: Context) -> Response | dict | str | bytes | tuple | None:
        return {"hello": context.params["name"]}

Request and Response are werkzeug's. `python -m app handler run FILE GET /path` runs it without an edge.
"""

from __future__ import annotations

from werkzeug.exceptions import abort
from werkzeug.wrappers import Request, Response

from app.domain.service_errors import NoSuchService, ServiceBusy, ServiceDown, ServiceError, ServiceTimeout
from app.gateway.clients import Execute, Query
from app.gateway.context import Context

__all__ = [
    "Context", "Execute", "NoSuchService", "Query", "Request", "Response", "ServiceBusy", "ServiceDown",
    "ServiceError", "ServiceTimeout", "abort",
]  # fmt: skip
