"""What may go wrong with a service, in classes that a handler can tell apart."""

from __future__ import annotations


class NoSuchService(LookupError):
    """No service of this name, or none of this kind, is configured."""


class ServiceError(Exception):
    """The service answered, and the answer is no: bad SQL, a broken constraint, an object too large.

    `service` is its name; `reason` a clear text for people, without secrets.
    """

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"service {service}: {reason}")
        self.service = service
        self.reason = reason


class ServiceDown(ServiceError):
    """The service cannot be reached. With `may_have_happened` the connection was lost during the call itself."""

    def __init__(self, service: str, reason: str, *, may_have_happened: bool = False) -> None:
        super().__init__(service, reason)
        self.may_have_happened = may_have_happened


class ServiceBusy(ServiceError):
    """Every connection is in use and the backlog is full: nothing was begun."""


class ServiceTimeout(ServiceError):
    """The deadline has passed. With `may_have_happened` the call was under way by then."""

    def __init__(self, service: str, reason: str, *, may_have_happened: bool = False) -> None:
        super().__init__(service, reason)
        self.may_have_happened = may_have_happened


class OperationRefused(Exception):
    """A connection's word for: the service said no, and the connection is as good as before."""


class ConnectionLost(Exception):
    """A connection's word for: it cannot be opened, or is of no use any more."""
