"""Registrations: services register themselves and renew the registration while they run.

Registering and renewing are the same request, so a lost registration comes back with the next renewal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from app.admin.api import Api, Model, skip_audit, with_whole_numbers
from app.admin.backends import Address, BackendPath, Number, Port, Text, parsed
from app.admin.problems import Problem
from app.domain.registration import DEFAULT_TTL_SECONDS, MAX_TTL_SECONDS, MIN_TTL_SECONDS, Registration
from app.domain.tokens import Scope
from app.ports import Registrar

TAG = "registrations"

_WHOLE = BeforeValidator(lambda value: with_whole_numbers({"": value})[""])


class RegistrationBody(Model):
    """A service to register."""

    app: Text = Field(default=None, description="Pools take the backends of one app")
    host: Address = Field(description="Its address or host name, as the edges reach it", examples=["10.50.1.1"])
    port: Port = Field(description="Its port", examples=[3000])
    region: Text = Field(default=None, description="Region, in lower case", examples=["sa", "us", "eu"])
    country: Text = Field(default=None, description="ISO 3166-1 alpha-2", examples=["BR"])
    weight: Number = Field(default=None, description="Share of the clients; null counts as 1")
    soft_limit: Number = Field(default=None, description="Connections at full load; null and 0 count as 100")
    hard_limit: Number = Field(default=None, description="Maximum number of connections; null and 0: no limit")
    ttl_seconds: Annotated[int, Field(strict=True, ge=MIN_TTL_SECONDS, le=MAX_TTL_SECONDS), _WHOLE] = Field(
        default=DEFAULT_TTL_SECONDS,
        description="Time after which it is removed unless it renews; renew three times as often",
    )
    draining: bool = Field(default=False, description="true: no new connections")


class RegistrationResponse(Model):
    """How long the registration is valid."""

    ttl_seconds: int = Field(description="Seconds from now; may be more than requested")
    is_new: bool = Field(description="Whether the registration did not exist or had expired")


def add_routes(api: Api, registrar: Registrar, check: Callable[[], None] = lambda: None) -> None:
    """Add the routes of this subject. `check` raises Problem if registrations would have no effect."""

    @api.put(
        "/api/registrations/<path:backend_id>", Scope.OPERATE, tag=TAG, response=RegistrationResponse, problems=(409,)
    )
    def put_registration(path: BackendPath, body: RegistrationBody) -> RegistrationResponse:
        """Register a service or renew its registration: it is a backend for the next `ttl_seconds`."""
        check()
        columns: dict[str, Any] = body.model_dump(exclude={"host", "ttl_seconds", "draining"})
        backend = parsed({"id": path.backend_id, "wg_ip": body.host, **columns}, {"wg_ip": "host"})
        try:
            granted = registrar.register(Registration(backend, body.ttl_seconds, body.draining))
        except KeyError:
            raise Problem(409, f"backend {path.backend_id} exists and is not a registration") from None
        if granted.is_renewal:
            skip_audit()
        return RegistrationResponse(ttl_seconds=granted.ttl_seconds, is_new=granted.is_new)

    @api.delete("/api/registrations/<path:backend_id>", Scope.OPERATE, tag=TAG, problems=(404, 409))
    def delete_registration(path: BackendPath) -> None:
        """End a registration and remove its backend."""
        check()
        try:
            registrar.deregister(path.backend_id)
        except KeyError:
            raise Problem(404, f"no such registration: {path.backend_id}") from None
