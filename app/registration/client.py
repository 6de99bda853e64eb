"""The registration client: keeps a service registered at an edge, and renews the registration in a thread of its own.

It needs only the edge's admin API, and no gevent::

    with RegistrationClient(3000, app="web", token=Path("admin.token")):
        ...  # serve until the end

The block begins once the service is registered, or while an edge that is down is retried. At its end the service is
drained, and then deregistered.
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
from app.domain.registration import DEFAULT_TTL_SECONDS, LONGEST_TTL_SECONDS, SHORTEST_TTL_SECONDS
from app.outbound.admin_api import DEFAULT_URL, AdminApi, ApiError, is_token, segment

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_DRAIN_SECONDS: Final = 2.0
END_SECONDS: Final = 1.5
"""For telling the edge that a service drains, or has ended. Without that the registration expires."""

MOST_RESPONSE_SECONDS: Final = 10.0

_FIRST_BACKOFF_SECONDS: Final = 0.2
_LONGEST_BACKOFF_SECONDS: Final = 5.0
_TEMPORARY: Final = (408, 429)
"""Refusals that the same request may not meet the next time."""


def default_id(app: str | None, port: int) -> str:
    """Return the id of a service without one: app, machine and port, so that it stays the same after a restart."""
    return "-".join([*([app] if app else []), socket.gethostname(), str(port)])


class RegistrationClient:
    """Registers a service as backend `id` at the edge at `url`, from `start` to `end`.

    If the edge refuses the first registration, the client gives up, and `refusal` has the reason. Every later failure
    is retried.
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
        is_there: Callable[[], bool] = lambda: True,
        on_refusal: Callable[[ApiError], None] = lambda _error: None,
    ) -> None:
        """Take a service that listens at `host` and `port`. The other columns are those of a backend.

        A `token` file is read again when its token is refused. While `is_there()` is false, the registration is not
        renewed. Raises BadBackend, a ValueError, for columns; ValueError for url or ttl_seconds; OSError for ca_file.
        """
        self.id = default_id(app, port) if id is None else id
        columns = {"app": app, "port": port, "region": region, "country": country, "weight": weight}
        limits = {"soft_limit": soft_limit, "hard_limit": hard_limit}
        parse_backend({"id": self.id, "wg_ip": host, **columns, **limits})
        if not SHORTEST_TTL_SECONDS <= ttl_seconds <= LONGEST_TTL_SECONDS:
            raise ValueError(f"ttl_seconds must be from {SHORTEST_TTL_SECONDS} to {LONGEST_TTL_SECONDS}")
        self._body = {"host": host, **columns, **limits, "ttl_seconds": ttl_seconds}
        self._renewal_seconds = ttl_seconds / 3
        self._drain_seconds = drain_seconds
        self._token = token
        self._api = AdminApi(
            url, "", ca_file, response_seconds=min(max(2.0, self._renewal_seconds), MOST_RESPONSE_SECONDS)
        )
        self._is_bearer = False
        self._is_there = is_there
        self._on_refusal = on_refusal
        self.refusal: ApiError | None = None
        self._trouble: str | None = ""
        """Why the last request failed, None when it succeeded, "" before the first."""
        self._was_registered = self._may_be_registered = False
        self._is_draining = False
        self._is_drained = threading.Event()
        self._has_tried = threading.Event()
        self._must_hurry = threading.Event()
        self._orders: SimpleQueue[str] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"registration {self.id}", daemon=True)

    def __enter__(self) -> Self:
        """Register. Raises ApiError when the edge refuses; an edge that is down is retried in the background."""
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
        """Start to register, in the background."""
        self._thread.start()

    def drain(self) -> None:
        """Ask the edge for no new connections, and wait for `drain_seconds` once it has confirmed."""
        self._orders.put("drain")
        give_up_at = time.monotonic() + END_SECONDS
        while not self._is_drained.is_set() and time.monotonic() < give_up_at:
            if self._must_hurry.wait(0.05):
                return
        if self._is_drained.is_set():
            self._must_hurry.wait(self._drain_seconds)

    def hurry(self) -> None:
        """End the wait of `drain`, now and later."""
        self._must_hurry.set()

    def end(self) -> None:
        """Deregister, after a `start`. At an edge that cannot be reached the registration expires."""
        if self._thread.ident is None:
            return
        self._orders.put("end")
        self._thread.join(END_SECONDS + _FIRST_BACKOFF_SECONDS)

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
        """Return the pause before the next request, with jitter, so that services do not renew in step."""
        if not failures:
            return self._renewal_seconds * random.uniform(0.8, 1.0)
        seconds = _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10)
        return min(seconds, self._renewal_seconds, _LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)

    def _renew(self) -> bool:
        """Register or renew; returns whether that succeeded."""
        is_draining = self._is_draining
        try:
            if not is_draining and not self._is_there():
                self._log_trouble("it does not accept connections any more, so it is not renewed")
                return False
            response = self._call("PUT", {**self._body, "draining": is_draining})
        except ApiError as error:
            self._failed(error)
            return False
        except Exception:  # the service serves on, and must stay registered
            logger.exception("{}: renewing failed", self.id)
            return False
        self._succeeded(response, is_draining)
        return True

    def _succeeded(self, response: dict[str, Any], is_draining: bool) -> None:
        self._was_registered = self._may_be_registered = True
        if response.get("is_new") and self._trouble is None:
            logger.warning("{} was lost, and is registered again", self.id)
        elif self._trouble is not None:
            how = "registered" if response.get("is_new") else "registered, and was before"
            logger.info("{} is {} at {}", self.id, how, self._api.url)
        self._trouble = None
        if is_draining and not self._is_drained.is_set():
            logger.info("{} drains", self.id)
            self._is_drained.set()

    def _failed(self, error: ApiError) -> None:
        status = error.status
        if status is None:
            self._may_be_registered = True  # the request may have arrived all the same
        elif not self._was_registered and status < 500 and status not in _TEMPORARY:
            self.refusal = error
            logger.error("{}: {} ({})", self.id, error.detail, status)
            self._on_refusal(error)
            return
        self._log_trouble(f"{error.detail} ({status})" if status is not None else error.detail)

    def _log_trouble(self, reason: str) -> None:
        if reason != self._trouble:
            logger.warning("{}: {}; trying again", self.id, reason)
        self._trouble = reason

    def _deregister(self) -> None:
        give_up_at = time.monotonic() + END_SECONDS
        while True:
            try:
                self._call("DELETE")
            except ApiError as error:
                if error.status is not None and error.status < 500 and error.status not in (401, *_TEMPORARY):
                    return  # there is no such registration any more
                if time.monotonic() > give_up_at:
                    logger.warning("{}: {}; the registration expires", self.id, error.detail)
                    return
                time.sleep(_FIRST_BACKOFF_SECONDS)
            else:
                logger.info("{} is deregistered", self.id)
                return

    def _call(self, method: str, body: object = None) -> dict[str, Any]:
        """Call the edge's route for this registration. Raises ApiError, also without a token."""
        if not self._is_bearer:
            self._api.show(self._read_token())
            self._is_bearer = True
        try:
            return self._api.call(method, f"/api/registrations/{segment(self.id)}", body) or {}
        except ApiError as error:
            self._is_bearer = error.status != 401
            raise

    def _read_token(self) -> str:
        if isinstance(self._token, str):
            return self._token
        try:
            token = self._token.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise ApiError(f"no token: {self._token}: {reason}") from None
        if not is_token(token):
            raise ApiError(f"{self._token} has no token")
        return token
