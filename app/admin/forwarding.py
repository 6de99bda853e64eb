"""Forwards changes of replicated backends to the replicator: the edge does not change them itself.

The token is checked here and again by the replicator, which has the same tokens. The response arrives once this edge's
own routing database has the change.
"""

from __future__ import annotations

import http.client
from string import punctuation
from typing import Final
from urllib.parse import quote

from flask import Response, g, request

from app.admin.api import CHANGING, Api
from app.admin.problems import Problem
from app.config import ListenAddress

SUBJECTS: Final = ("/api/backends", "/api/registrations")
RESPONSE_SECONDS: Final = 20.0
"""Longer than the replicator needs to try one etcd after another and give up."""
BULK_RESPONSE_SECONDS: Final = 100.0
"""Longer than ten thousand backends take, at a round trip to etcd of 0.1 s."""


def forward_changes(api: Api, replicator: ListenAddress) -> None:
    """Forward changing requests for these subjects to the replicator."""

    def forward() -> Response | None:
        is_forwarded = any(request.path == subject or request.path.startswith(f"{subject}/") for subject in SUBJECTS)
        return _forwarded(replicator) if is_forwarded and request.method in CHANGING else None

    api.wsgi.before_request(forward)


def _forwarded(replicator: ListenAddress) -> Response:
    """Send the request to the replicator. Raises Problem (503) if it does not respond."""
    headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
    is_bulk = request.method == "PUT" and request.path == "/api/backends"
    seconds = BULK_RESPONSE_SECONDS if is_bulk else RESPONSE_SECONDS
    connection = http.client.HTTPConnection(replicator.host, replicator.port, timeout=seconds)
    try:
        connection.request(request.method, _target(), request.get_data(), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        detail = (
            f"the replicator on {replicator} does not respond: {error}; this edge keeps serving the backends it has"
        )
        raise Problem(503, detail, headers={"Retry-After": "1"}) from None
    finally:
        connection.close()
    if response.status >= 400:
        g.problem = f"the replicator responded with {response.status}"
    kept = {name: text for name in ("Retry-After", "WWW-Authenticate", "Allow") if (text := response.headers[name])}
    return Response(body, response.status, headers=kept, content_type=response.headers["Content-Type"])


def _target() -> str:
    """Return path and query as they were sent, bytes beyond ASCII escaped."""
    return quote(request.environ["REQUEST_URI"].encode("latin-1"), safe=punctuation)
