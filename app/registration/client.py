"""For services: a registration at an edge, said again and again by a thread of its own for as long as it lasts.

Nothing here knows the rest of the edge but its admin API, and gevent is not needed::

    with RegistrationClient(3000, app="web", token=Path("admin.token")):
        ...  # serve until told to end

On the way in it is registered, or waits for an edge that is down; on the way out it drains, waits, and is ended.
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
LAST_WORD_SECONDS: Final = 1.5
"""For the edge to hear that a service drains, and that it has ended. It finds out by itself later."""

MOST_RESPONSE_SECONDS: Final = 10.0

_FIRST_BACKOFF_SECONDS: Final = 0.2
_LONGEST_BACKOFF_SECONDS: Final = 5.0
_MAY_PASS: Final = (408, 429)
"""Refusals that the same words will not meet the next time."""


def default_id(app: str | None, port: int) -> str:
    """Return how a service is called that says no name: by app, machine and port, so that a restart is the same."""
    return "-".join([*([app] if app else []), socket.gethostname(), str(port)])


class RegistrationClient:
    """A service, registered from `start` to `end`. It is `id` at the edge at `url`, to the bearer of a token.

    An edge that refuses, before it has ever taken this registration, is not asked again: `refusal` is why. Whatever is
    in the way later is tried again until it is heard.
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
        """`token` in a file is read again when it is refused. While `is_there` says no, nothing is said.

        Raises BadBackend, a ValueError: this is no service; ValueError: url or ttl_seconds; OSError: the ca_file.
        """
        self.id = default_id(app, port) if id is None else id
        columns = {"app": app, "port": port, "region": region, "country": country, "weight": weight}
        limits = {"soft_limit": soft_limit, "hard_limit": hard_limit}
        parse_backend({"id": self.id, "wg_ip": host, **columns, **limits})
        if not MIN_TTL_SECONDS <= ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"ttl_seconds must be from {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS}")
        self._said = {"host": host, **columns, **limits, "ttl_seconds": ttl_seconds}
        self._beat_seconds = ttl_seconds / 3
        self._drain_seconds = drain_seconds
        self._token = token
        self._api = AdminApi(
            url, "", ca_file, response_seconds=min(max(2.0, self._beat_seconds), MOST_RESPONSE_SECONDS)
        )
        self._is_bearer = False
        self._is_there = is_there
        self._on_refusal = on_refusal
        self.refusal: ApiError | None = None
        self._trouble: str | None = ""
        """What was in the way of the last word, None when nothing was, "" before the first."""
        self._was_registered = self._may_be_registered = False
        self._is_draining = False
        self._drain_is_heard = threading.Event()
        self._has_spoken = threading.Event()
        self._must_hurry = threading.Event()
        self._orders: SimpleQueue[str] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"registration {self.id}", daemon=True)

    def __enter__(self) -> Self:
        """Register. Raises ApiError when the edge refuses; one that is down is tried again in the background."""
        self.start()
        self._has_spoken.wait()
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
        """Begin to register, in the background."""
        self._thread.start()

    def drain(self) -> None:
        """Ask for no new connections, and wait a while once that is heard."""
        self._orders.put("drain")
        give_up_at = time.monotonic() + LAST_WORD_SECONDS
        while not self._drain_is_heard.is_set() and time.monotonic() < give_up_at:
            if self._must_hurry.wait(0.05):
                return
        if self._drain_is_heard.is_set():
            self._must_hurry.wait(self._drain_seconds)

    def hurry(self) -> None:
        """Let nobody wait in `drain` from now on."""
        self._must_hurry.set()

    def end(self) -> None:
        """Deregister, if it was begun. An edge that cannot be told finds out when the time to live is over."""
        if self._thread.ident is None:
            return
        self._orders.put("end")
        self._thread.join(LAST_WORD_SECONDS + _FIRST_BACKOFF_SECONDS)

    # In the thread

    def _run(self) -> None:
        failures = 0
        while True:
            failures = 0 if self._say() else failures + 1
            self._has_spoken.set()
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
        """Return when to speak next; not all services at once."""
        if not failures:
            return self._beat_seconds * random.uniform(0.8, 1.0)
        seconds = _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10)
        return min(seconds, self._beat_seconds, _LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)

    def _say(self) -> bool:
        """Register or renew; False when it is to be tried again soon."""
        is_draining = self._is_draining
        try:
            if not is_draining and not self._is_there():
                self._in_trouble("it does not answer any more, so nothing is said of it")
                return False
            response = self._call("PUT", {**self._said, "draining": is_draining})
        except ApiError as error:
            self._failed(error)
            return False
        except Exception:  # whatever it is, the service serves on, and is to be said so
            logger.exception("{}: asking the edge failed", self.id)
            return False
        self._heard(response, is_draining)
        return True

    def _heard(self, response: dict[str, Any], is_draining: bool) -> None:
        self._was_registered = self._may_be_registered = True
        if response.get("is_new") and self._trouble is None:
            logger.warning("{} was lost, and is registered again", self.id)
        elif self._trouble is not None:
            how = "registered" if response.get("is_new") else "registered, as it was before"
            logger.info("{} is {} at {}", self.id, how, self._api.url)
        self._trouble = None
        if is_draining and not self._drain_is_heard.is_set():
            logger.info("{} drains", self.id)
            self._drain_is_heard.set()

    def _failed(self, error: ApiError) -> None:
        status = error.status
        if status is None:
            self._may_be_registered = True  # it may have been heard all the same
        elif not self._was_registered and status < 500 and status not in _MAY_PASS:
            self.refusal = error
            logger.error("{}: {} ({})", self.id, error.detail, status)
            self._on_refusal(error)
            return
        self._in_trouble(f"{error.detail} ({status})" if status is not None else error.detail)

    def _in_trouble(self, words: str) -> None:
        if words != self._trouble:
            logger.warning("{}: {}; trying again", self.id, words)
        self._trouble = words

    def _deregister(self) -> None:
        give_up_at = time.monotonic() + LAST_WORD_SECONDS
        while True:
            try:
                self._call("DELETE")
            except ApiError as error:
                if error.status is not None and error.status < 500 and error.status not in (401, *_MAY_PASS):
                    return  # it was not there any more
                if time.monotonic() > give_up_at:
                    logger.warning("{}: {}; it expires by itself", self.id, error.detail)
                    return
                time.sleep(_FIRST_BACKOFF_SECONDS)
            else:
                logger.info("{} is registered no more", self.id)
                return

    def _call(self, method: str, body: object = None) -> dict[str, Any]:
        """Ask the edge. Raises ApiError, also where there is no token yet."""
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
            reason = getattr(error, "strerror", None) or "is no text"
            raise ApiError(f"no token: {self._token}: {reason}") from None
        if not is_token(token):
            raise ApiError(f"{self._token} holds no token")
        return token
