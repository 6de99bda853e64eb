"""The errors of services, in classes that a handler can tell apart."""

from __future__ import annotations


class NoSuchService(LookupError):
    """No service of this name, or of this name and kind, is configured."""


class ServiceError(Exception):
    """The service refused the operation: bad SQL, a violated constraint, an object too large.

    `service` is its name; `reason` is a readable text without secrets.
    """

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"service {service}: {reason}")
        self.service = service
        self.reason = reason


class ServiceDown(ServiceError):
    """The service cannot be reached. With `may_have_happened` the connection was lost during the call."""

    def __init__(self, service: str, reason: str, *, may_have_happened: bool = False) -> None:
        super().__init__(service, reason)
        self.may_have_happened = may_have_happened


class ServiceBusy(ServiceError):
    """Every connection is in use and the backlog is full. Nothing was sent."""


class ServiceTimeout(ServiceError):
    """The deadline has passed. With `may_have_happened` the call was already in progress."""

    def __init__(self, service: str, reason: str, *, may_have_happened: bool = False) -> None:
        super().__init__(service, reason)
        self.may_have_happened = may_have_happened


class OperationRefused(Exception):
    """Raised by a connection: the service refused the operation, and the connection is still usable."""


class ConnectionLost(Exception):
    """Raised by a connection: it cannot be opened, or is no longer usable."""
