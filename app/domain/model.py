"""The nouns of routing (Backend, GeoInfo, Lease), and the validation of a backend row."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from app.domain.host_name import is_host_name
from app.domain.outcome import Affinity, NoLease

DEFAULT_SOFT_LIMIT: Final = 100
DEFAULT_WEIGHT: Final = 1
MAX_TEXT_CHARACTERS: Final = 255
"""Maximum length of an id and other texts, because they appear in log lines, metric labels and API responses."""
MAX_SHOWN_CHARACTERS: Final = 300
"""Maximum length at which an invalid value is quoted in an error."""

BACKEND_COLUMNS: Final = (
    "id",
    "app",
    "region",
    "country",
    "wg_ip",
    "port",
    "healthy",
    "weight",
    "soft_limit",
    "hard_limit",
    "deleted",
)
"""The columns of the seed's `backends` table, in its order."""

DRAIN_DEADLINE: Final = "drain_deadline"
"""An additional column: Unix seconds at which a deleted backend's open connections are closed; NULL = never."""

DRAINING: Final = "draining"
"""An additional column: 1 if a self-registered service wants no new connections; it has the effect of `deleted`."""


@dataclass(frozen=True, slots=True)
class GeoInfo:
    """The location of an address: ISO 3166-1 alpha-2 country and our region, each None if unknown."""

    country: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class Backend:
    """One validated row of the routing database.

    `host` is an IP address in canonical text. If the row has a `host_name` instead, the host is empty until the name
    has been resolved. Limits count connections: `soft_limit` is above 0, `hard_limit` 0 is unlimited. A backend of
    `weight` 0 takes no new clients. `country` is upper case, `region` lower case, each None if not given.
    """

    id: str
    app: str | None
    region: str | None
    country: str | None
    host: str
    port: int
    is_healthy: bool = True
    weight: int = DEFAULT_WEIGHT
    soft_limit: int = DEFAULT_SOFT_LIMIT
    hard_limit: int = 0
    is_deleted: bool = False
    drain_deadline: float | None = None
    host_name: str | None = None
    is_backup: bool = False
    """Whether it serves only while no other is a candidate. Servers of a file alone can be backups."""

    @property
    def is_serving(self) -> bool:
        """Whether it is healthy and not deleted in the database, and its address is known."""
        return self.is_healthy and not self.is_deleted and self.host != ""


class Lease(NamedTuple):
    """A reserved place on a backend.

    `tier` is the geo tier 0-3, None if the algorithm is not geo. `is_spotless` means that no failure of the backend in
    traffic is on record.
    """

    lease_id: int
    backend: Backend
    tier: int | None
    affinity: Affinity
    is_spotless: bool = True


@dataclass(frozen=True, slots=True)
class Unleased:
    """The reply to a lease request for which no backend was available."""

    reason: NoLease


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in one column of a row: its name, the value found, and the rule that it breaks."""

    column: str
    value: object
    rule: str

    def __str__(self) -> str:
        return f"{self.column}={self.value!r:.{MAX_SHOWN_CHARACTERS}}: {self.rule}"


class BadBackend(ValueError):
    """An invalid backend row. `faults` has an entry for every faulty column, at least one."""

    def __init__(self, backend_id: object, faults: tuple[Fault, ...]) -> None:
        super().__init__(f"backend {backend_id!r:.{MAX_SHOWN_CHARACTERS}}: " + "; ".join(map(str, faults)))
        self.backend_id = backend_id
        self.faults = faults

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BadBackend) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse_backend(row: Mapping[str, object]) -> Backend:
    """Make a Backend from a row of the `backends` table. Absent columns count as NULL.

    NULL in id, wg_ip or port is refused. Elsewhere it means healthy 1, weight 1, soft_limit 100, hard_limit 0,
    deleted 0, draining 0, and none for app, region, country and drain_deadline. A soft_limit of 0 counts as 100.

    Raises BadBackend with every fault of the row.
    """
    reader = _RowReader(row)
    id_, (host, host_name) = reader.text("id", is_required=True), reader.host("wg_ip")
    backend = Backend(
        id=id_ or "",
        app=reader.text("app"),
        region=_lower(reader.text("region")),
        country=_upper(reader.text("country")),
        host=host,
        port=reader.number("port", None, lowest=1, highest=65535),
        is_healthy=reader.flag("healthy", True),
        weight=reader.number("weight", DEFAULT_WEIGHT),
        soft_limit=reader.number("soft_limit", DEFAULT_SOFT_LIMIT) or DEFAULT_SOFT_LIMIT,
        hard_limit=reader.number("hard_limit", 0),
        is_deleted=reader.flag("deleted", False) | reader.flag(DRAINING, False),
        drain_deadline=reader.seconds(DRAIN_DEADLINE),
        host_name=host_name,
    )
    if reader.faults:
        raise BadBackend(row.get("id"), tuple(reader.faults))
    return backend


def limit_warning(backend: Backend) -> str | None:
    """Return a warning about the limits of an accepted row, None if there is none."""
    if 0 < backend.hard_limit < backend.soft_limit:
        return (
            f"hard_limit {backend.hard_limit} is below soft_limit {backend.soft_limit}: the hard limit counts for both"
        )
    return None


class _RowReader:
    """Reads the columns of one row and collects every fault; a faulty column yields a placeholder."""

    def __init__(self, row: Mapping[str, object]) -> None:
        self._row = row
        self.faults: list[Fault] = []

    def _fault(self, column: str, rule: str) -> None:
        self.faults.append(Fault(column, self._row.get(column), rule))

    def text(self, column: str, *, is_required: bool = False) -> str | None:
        value = self._row.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            if is_required:
                self._fault(column, "must not be empty")
            return None
        if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_TEXT_CHARACTERS:
            self._fault(column, f"must be printable text of at most {MAX_TEXT_CHARACTERS} characters")
            return None
        return value.strip()

    def host(self, column: str) -> tuple[str, str | None]:
        """Return an address and None, or an empty text and a host name."""
        value = self.text(column, is_required=True)
        if value is None:
            return "", None
        try:
            return str(ipaddress.ip_address(value)), None
        except ValueError:
            if is_host_name(value.lower()):
                return "", value.lower()
            self._fault(column, "must be an IPv4 or IPv6 address, or a host name")
            return "", None

    def number(self, column: str, default: int | None, *, lowest: int = 0, highest: int = 2**31 - 1) -> int:
        value = self._row.get(column)
        if value is None:
            value = default
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        self._fault(column, f"must be a whole number from {lowest} to {highest}")
        return 0

    def flag(self, column: str, default: bool) -> bool:
        value = self._row.get(column)
        if value is None:
            return default
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        self._fault(column, "must be 0 or 1")
        return default

    def seconds(self, column: str) -> float | None:
        value = self._row.get(column)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return float(value)
        self._fault(column, "must be Unix seconds")
        return None


def _lower(text: str | None) -> str | None:
    return text.lower() if text else None


def _upper(text: str | None) -> str | None:
    return text.upper() if text else None
