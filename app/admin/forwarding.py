"""Where backends are replicated this edge changes none itself: such requests go on to the replicator, as they are.

Who may do so was judged here, and is judged there again by the same tokens. The answer comes when this edge's own
routing database has the change.
"""

from __future__ import annotations

import http.client
from typing import Final
from urllib.parse import quote

from flask import Response, g, request

from app.admin.api import CHANGING, Api
from app.admin.problems import Problem
from app.config import ListenAddress

SUBJECTS: Final = ("/api/backends", "/api/registrations")
RESPONSE_SECONDS: Final = 20.0
"""For the replicator, which asks one etcd after the other and gives up before."""


def forward_changes(api: Api, replicator: ListenAddress) -> None:
    """Send changes of these subjects to the replicator from now on."""

    def forward() -> Response | None:
        is_ours = any(request.path == subject or request.path.startswith(f"{subject}/") for subject in SUBJECTS)
        return _forwarded(replicator) if is_ours and request.method in CHANGING else None

    api.wsgi.before_request(forward)


def _forwarded(replicator: ListenAddress) -> Response:
    """Ask the replicator. Raises Problem (503) when it does not answer."""
    headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
    connection = http.client.HTTPConnection(replicator.host, replicator.port, timeout=RESPONSE_SECONDS)
    try:
        connection.request(request.method, _target(), request.get_data(), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        detail = f"the replicator on {replicator} does not answer: {error}; what is known here serves on"
        raise Problem(503, detail, headers={"Retry-After": "1"}) from None
    finally:
        connection.close()
    if response.status >= 400:
        g.problem = f"the replicator answered {response.status}"
    kept = {name: text for name in ("Retry-After", "WWW-Authenticate", "Allow") if (text := response.headers[name])}
    return Response(body, response.status, headers=kept, content_type=response.headers["Content-Type"])


def _target() -> str:
    """Return path and query; what stands for a slash in an id is one."""
    query = request.query_string.decode("latin-1")
    return quote(request.path) + (f"?{query}" if query else "")
