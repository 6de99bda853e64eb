"""The context of a handler's call: request id, endpoint, path parameters, a logger and the services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from loguru import logger

from app.domain.service_errors import NoSuchService
from app.gateway.clients import Cache, Database, Email, Storage


class Services(Protocol):
    """The clients of the service actors."""

    def get(self, kind: str, name: str) -> Any:
        """Return the client of a service. Raises NoSuchService."""
        ...


class NoServices:
    """Stands for services where none are configured."""

    def get(self, kind: str, name: str) -> Any:
        raise NoSuchService(f"there is no service {name}: no services are configured here")


class Context:
    """The second argument of a handler.

    `params` are the converted path parameters; `version` is the number of the running version.
    """

    __slots__ = ("_logger", "_services", "endpoint_id", "params", "request_id", "version")

    def __init__(
        self,
        request_id: str,
        endpoint_id: str,
        version: int,
        params: Mapping[str, Any],
        services: Services,
    ) -> None:
        self.request_id = request_id
        self.endpoint_id = endpoint_id
        self.version = version
        self.params = params
        self._services = services
        self._logger: Any = None

    @property
    def logger(self) -> Any:
        """A loguru logger; its lines carry the endpoint, the version and the request id."""
        if self._logger is None:
            self._logger = logger.bind(endpoint=self.endpoint_id, version=self.version, request_id=self.request_id)
        return self._logger

    def db(self, name: str = "main") -> Database:
        """Return the client of a database. Raises NoSuchService."""
        return cast(Database, self._services.get("database", name))

    def cache(self, name: str = "main") -> Cache:
        """Return the client of a cache. Raises NoSuchService."""
        return cast(Cache, self._services.get("cache", name))

    def storage(self, name: str = "main") -> Storage:
        """Return the client of an object storage. Raises NoSuchService."""
        return cast(Storage, self._services.get("storage", name))

    def email(self, name: str = "main") -> Email:
        """Return the client of a mail server. Raises NoSuchService."""
        return cast(Email, self._services.get("email", name))
