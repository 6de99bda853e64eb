"""The registration client for services: registers a service at an edge and renews it in a background thread.

It uses only the edge's admin API and does not need gevent::

    with RegistrationClient(3000, app="web", token=Path("admin.token")):
        ...  # serve until told to end

Entering registers the service, or keeps trying if the edge is down. Leaving drains it, waits, and deregisters it.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

from loguru import logger

from app.domain.model import parse_backend
from app.domain.registration import DEFAULT_TTL_SECONDS, MAX_TTL_SECONDS, MIN_TTL_SECONDS
from app.outbound.admin_api import DEFAULT_URL, AdminApi, ApiError, is_token, segment

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_DRAIN_SECONDS: Final = 2.0
FINAL_CALL_SECONDS: Final = 1.5
"""Time limit for draining and for deregistering at the edge. Without them the registration expires by itself."""

MAX_RESPONSE_SECONDS: Final = 10.0

_FIRST_BACKOFF_SECONDS: Final = 0.2
_MAX_BACKOFF_SECONDS: Final = 5.0
_TEMPORARY: Final = (408, 429)
"""Refusals after which the same request may succeed later."""


def default_id(app: str | None, port: int) -> str:
    """Return the id of a service without one: app, host name and port, so that it survives a restart."""
    return "-".join([*([app] if app else []), socket.gethostname(), str(port)])


class RegistrationClient:
    """Keeps a service registered as `id` at the edge at `url`, from `start` to `end`.

    If the edge refuses before it has ever accepted this registration, the client stops, and `refusal` is the reason.
    All later failures are retried.
    """

    def __init__(
        self,
        port: int,
        *,
        app: str | None = None,
        host: str = DEFAULT_HOST,
        id: str | None = None,
        region: str | None = None,
        country: str | None = None,
        weight: int | None = None,
        soft_limit: int | None = None,
        hard_limit: int | None = None,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        drain_seconds: float = DEFAULT_DRAIN_SECONDS,
        url: str = DEFAULT_URL,
        token: str | Path = Path("admin.token"),
        ca_file: Path | None = None,
        is_serving: Callable[[], bool] = lambda: True,
        on_refusal: Callable[[ApiError], None] = lambda _error: None,
    ) -> None:
        """`token` is a text or a file, which is read again after a refusal. Renewal pauses while `is_serving` is false.

        Raises BadBackend (a ValueError) for an invalid service, ValueError for `url` or `ttl_seconds`, OSError for
        `ca_file`.
        """
        self.id = default_id(app, port) if id is None else id
        columns = {"app": app, "port": port, "region": region, "country": country, "weight": weight}
        limits = {"soft_limit": soft_limit, "hard_limit": hard_limit}
        parse_backend({"id": self.id, "wg_ip": host, **columns, **limits})
        if not MIN_TTL_SECONDS <= ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"ttl_seconds must be from {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS}")
        self._service = {"host": host, **columns, **limits, "ttl_seconds": ttl_seconds}
        self._renewal_seconds = ttl_seconds / 3
        self._drain_seconds = drain_seconds
        self._token = token
        self._api = AdminApi(
            url, "", ca_file, response_seconds=min(max(2.0, self._renewal_seconds), MAX_RESPONSE_SECONDS)
        )
        self._has_token = False
        self._is_serving = is_serving
        self._on_refusal = on_refusal
        self.refusal: ApiError | None = None
        self._last_problem: str | None = ""
        """The reason why the last call failed, None if it succeeded, "" before the first."""
        self._was_registered = self._may_be_registered = False
        self._is_draining = False
        self._drain_is_confirmed = threading.Event()
        self._has_tried = threading.Event()
        self._skip_waiting = threading.Event()
        self._orders: SimpleQueue[str] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"registration {self.id}", daemon=True)

    def __enter__(self) -> Self:
        """Register. Raises ApiError if the edge refuses. If it is down, retries in the background."""
        self.start()
        self._has_tried.wait()
        if self.refusal is not None:
            raise self.refusal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.drain()
        self.end()

    def start(self) -> None:
        """Start registering in the background."""
        self._thread.start()

    def drain(self) -> None:
        """Stop new connections, and once the edge has confirmed that, wait `drain_seconds`."""
        self._orders.put("drain")
        give_up_at = time.monotonic() + FINAL_CALL_SECONDS
        while not self._drain_is_confirmed.is_set() and time.monotonic() < give_up_at:
            if self._skip_waiting.wait(0.05):
                return
        if self._drain_is_confirmed.is_set():
            self._skip_waiting.wait(self._drain_seconds)

    def skip_waiting(self) -> None:
        """End the waiting in `drain`, now and later."""
        self._skip_waiting.set()

    def end(self) -> None:
        """Deregister, if started. If the edge cannot be reached, the registration expires after its TTL."""
        if self._thread.ident is None:
            return
        self._orders.put("end")
        self._thread.join(FINAL_CALL_SECONDS + _FIRST_BACKOFF_SECONDS)

    # In the thread

    def _run(self) -> None:
        failures = 0
        while True:
            failures = 0 if self._renew() else failures + 1
            self._has_tried.set()
            if self.refusal is not None:
                break
            try:
                order = self._orders.get(timeout=self._pause_seconds(failures))
            except Empty:
                continue
            if order == "end":
                break
            self._is_draining = True
        if self._may_be_registered:
            self._deregister()
        self._api.close()

    def _pause_seconds(self, failures: int) -> float:
        """Return the seconds until the next call, randomized so that services do not call at the same time."""
        if not failures:
            return self._renewal_seconds * random.uniform(0.8, 1.0)
        seconds = _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10)
        return min(seconds, self._renewal_seconds, _MAX_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)

    def _renew(self) -> bool:
        """Register or renew. Returns False if it failed and should be retried soon."""
        is_draining = self._is_draining
        try:
            if not is_draining and not self._is_serving():
                self._retry_later("the service does not respond, so it is not renewed")
                return False
            response = self._call("PUT", {**self._service, "draining": is_draining})
        except ApiError as error:
            self._failed(error)
            return False
        except Exception:  # the service continues, so keep trying to register it
            logger.exception("{}: calling the edge failed", self.id)
            return False
        self._accepted(response, is_draining)
        return True

    def _accepted(self, response: dict[str, Any], is_draining: bool) -> None:
        self._was_registered = self._may_be_registered = True
        if response.get("is_new") and self._last_problem is None:
            logger.warning("{} was lost at the edge and is registered again", self.id)
        elif self._last_problem is not None:
            how = "registered" if response.get("is_new") else "still registered"
            logger.info("{} is {} at {}", self.id, how, self._api.url)
        self._last_problem = None
        if is_draining and not self._drain_is_confirmed.is_set():
            logger.info("{} is draining", self.id)
            self._drain_is_confirmed.set()

    def _failed(self, error: ApiError) -> None:
        status = error.status
        if status is None:
            self._may_be_registered = True  # the edge may have received it nevertheless
        elif not self._was_registered and status < 500 and status not in _TEMPORARY:
            self.refusal = error
            logger.error("{}: {} ({})", self.id, error.detail, status)
            self._on_refusal(error)
            return
        self._retry_later(f"{error.detail} ({status})" if status is not None else error.detail)

    def _retry_later(self, reason: str) -> None:
        if reason != self._last_problem:
            logger.warning("{}: {}; will retry", self.id, reason)
        self._last_problem = reason

    def _deregister(self) -> None:
        give_up_at = time.monotonic() + FINAL_CALL_SECONDS
        while True:
            try:
                self._call("DELETE")
            except ApiError as error:
                if error.status is not None and error.status < 500 and error.status not in (401, *_TEMPORARY):
                    return  # it no longer exists
                if time.monotonic() > give_up_at:
                    logger.warning("{}: {}; the registration will expire", self.id, error.detail)
                    return
                time.sleep(_FIRST_BACKOFF_SECONDS)
            else:
                logger.info("{} is deregistered", self.id)
                return

    def _call(self, method: str, body: object = None) -> dict[str, Any]:
        """Call the edge. Raises ApiError, also if there is no token yet."""
        if not self._has_token:
            self._api.set_token(self._read_token())
            self._has_token = True
        try:
            return self._api.call(method, f"/api/registrations/{segment(self.id)}", body) or {}
        except ApiError as error:
            self._has_token = error.status != 401
            raise

    def _read_token(self) -> str:
        if isinstance(self._token, str):
            return self._token
        try:
            token = self._token.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not text"
            raise ApiError(f"cannot read the token: {self._token}: {reason}") from None
        if not is_token(token):
            raise ApiError(f"{self._token} does not contain a token")
        return token
