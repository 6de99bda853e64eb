"""Parsers and types of configuration values: addresses, networks, durations, HTTP statuses, switches."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, WithJsonSchema

from app.config import durations, patterns
from app.config.written import Written, is_number, number, switch, whole
from app.domain.host_name import is_host_name
from app.domain.secrets import MASK, masked

T = TypeVar("T")

MAX_DOMAIN_LENGTH: Final = 125
"""Characters. Leaves room for two labels before the domain in a name of 255 bytes (RFC 1035, section 2.3.4)."""
WILDCARDS: Final = ("0.0.0.0", "::")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

POSTGRESQL: Final = "postgresql://"
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|\s")
_POSTGRESQL_URL: Final = re.compile(r"postgresql://([^@/?]*@)?[^@/?]*(/[^@?]*)?(\?.*)?")
"""At most one @ before the parameters: with two, libpq takes part of the password for the host and logs it."""
_PLAIN_SECONDS: Final = re.compile(r"[-+]?([0-9]+\.?|[0-9]*\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_STATUSES: Final = re.compile(r"([0-9]{3})(?:-([0-9]{3}))?")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\[[^]/]*\]|[^/:?#]*)(:[0-9]+)?")
_PORTS: Final = {"http": ":80", "https": ":443"}
_URL_OF_SERVER: Final = re.compile(r"https?://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}/?")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address and port to listen on or to connect to.

    `host` is an IP address as text, or the host name of a backend. Port 0 lets the kernel choose.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def clashes_with(self, other: ListenAddress) -> bool:
        """Return whether Linux refuses to listen on both: same port, and same host or a wildcard of the same family.

        Listening sockets of the edge are IPV6_V6ONLY, so the wildcards of the two families do not clash.
        """
        if self.port != other.port or self.port == 0 or (":" in self.host) != (":" in other.host):
            return False
        return self.host == other.host or self.is_wildcard or other.is_wildcard

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of its family."""
        return self.host in WILDCARDS


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A `postgresql://` URL. `str()` masks the password; `text` contains it."""

    text: str = field(repr=False)

    def __str__(self) -> str:
        login, at, rest = self.text.removeprefix(POSTGRESQL).rpartition("@")
        return str(masked(f"{POSTGRESQL}{MASK if ':' in login else login}{at}{rest}"))


def database_url(value: object) -> object:
    """Parse a PostgreSQL URL in libpq's syntax; empty is None. Raises ValueError, without the text."""
    if isinstance(value, DatabaseUrl) or none_if_empty(value) is None:
        return none_if_empty(value)
    text = re.sub(r"^postgres://", POSTGRESQL, str(value).strip())
    if not _POSTGRESQL_URL.fullmatch(text) or _BAD_ESCAPE.search(text):
        _refuse(f"must be {POSTGRESQL}user@host/database; write special characters as %XX")
    return DatabaseUrl(text)


# Addresses and networks


def listen_addresses(value: object) -> object:
    """Parse `address:port, …` or a list of them; `*` is the wildcard of both families. Raises ValueError."""
    if isinstance(value, tuple):
        return value
    return _each(value, _addresses_of) or _refuse("needs at least one address:port, as in *:8080")


def one_listen_address(value: object) -> object:
    """Parse exactly one `address:port`. Raises ValueError."""
    addresses = value if isinstance(value, ListenAddress) else listen_addresses(value)
    if isinstance(addresses, tuple) and len(addresses) != 1:
        raise ValueError("needs exactly one address:port")
    return addresses[0] if isinstance(addresses, tuple) else addresses


def server_address(value: object) -> object:
    """Parse `address:port` or `name:port` of one server. Raises ValueError."""
    if isinstance(value, str):
        _refuse_url(value)
    host, _, port = str(lower(value)).rpartition(":")
    if is_host_name(host) and _PORT.fullmatch(port) and 0 < int(port) <= 65535:
        return ListenAddress(host, int(port))
    address = one_listen_address(value)
    if isinstance(address, ListenAddress) and (address.port == 0 or address.host in ("0.0.0.0", "::")):
        raise ValueError("needs the address and port of one server, not a wildcard or port 0")
    return address


def _refuse_url(text: str) -> None:
    """Refuse a URL where an address belongs, and say what to write instead. Raises ValueError."""
    match = _URL.match(text.strip())
    if match is not None:
        scheme, host, port = match[1].lower(), match[2], match[3] or _PORTS.get(match[1].lower(), ":PORT")
        _refuse(f"is a URL: write {host}{port}" + (", and protocol: http at the frontend" if scheme == "http" else ""))


def _addresses_of(item: str) -> list[ListenAddress]:
    _refuse_url(item)
    host, colon, port = item.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError(
            f"{item!r}: needs an address and a port from 0 to 65535, as in *:8080, 127.0.0.1:8080 or [::1]:8080"
        )
    if host == "*":
        return [ListenAddress("0.0.0.0", int(port)), ListenAddress("::", int(port))]
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        raise ValueError(f"{item!r}: {host!r} is not an IP address (or * for both families)") from None
    if is_bracketed != (address.version == 6):
        raise ValueError(f"{item!r}: put IPv6 addresses, and only those, in brackets, as in [::1]:8080")
    if address in _MAPPED:
        raise ValueError(f"{item!r}: is an IPv4-mapped address; use the IPv4 address")
    return [ListenAddress(str(address), int(port))]


def _etcd_endpoints(value: object) -> object:
    return value if isinstance(value, tuple) else _each(value, _etcd_endpoint)


def _etcd_endpoint(item: str) -> list[str]:
    if _URL_OF_SERVER.fullmatch(item) is None:
        raise ValueError(f"{item!r}: needs URLs such as http://10.50.0.1:2379 or https://[fd00::1]:2379")
    return [item.rstrip("/")]


def _networks(value: object) -> object:
    if isinstance(value, tuple):
        return value
    try:
        return _each(value, _network)
    except ValueError as error:
        raise ValueError(f"{error}; needs networks such as 10.0.0.0/8,2001:db8::/32") from None


def _network(item: str) -> list[IPNetwork]:
    try:
        network = ipaddress.ip_network(item, strict=False)
    except ValueError:
        raise ValueError(f"{item!r} is not a network") from None
    if "/" in item and ipaddress.ip_address(item.partition("/")[0]) != network.network_address:
        raise ValueError(f"{item} has host bits set, did you mean {network}?")
    if network.version == 6 and network.subnet_of(_MAPPED):
        raise ValueError(f"{item!r}: is an IPv4-mapped network; use the IPv4 network")
    return [network]


def _each(value: object, parse: Callable[[str], Iterable[T]]) -> tuple[T, ...]:
    """Parse each item of a comma-separated text or of a list. Raises ValueError naming every bad item."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    parsed: list[T] = []
    faults = []
    for item in filter(None, (str(item).strip() for item in items)):
        try:
            parsed += parse(item)
        except ValueError as error:
            faults.append(str(error))
    return tuple(parsed) if not faults else _refuse("; ".join(faults))


def _refuse(rule: str) -> NoReturn:
    raise ValueError(rule)


def _domain(value: object) -> object:
    domain = str(lower(value)).removesuffix(".")
    if not is_host_name(domain) or len(domain) > MAX_DOMAIN_LENGTH:
        raise ValueError(f"needs a domain such as internal or edge.example, of at most {MAX_DOMAIN_LENGTH} characters")
    return domain


# Numbers and switches


def _duration(value: object) -> object:
    """Parse a duration of the file, in which a number is written without quotes. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        _refuse(durations.RULE)
    if not isinstance(value, str):
        return value
    if isinstance(value, Written) and is_number(value):
        return float(value)
    seconds = durations.seconds_of(value.strip())
    return seconds if seconds is not None else _refuse(durations.RULE)


def _seconds(value: object) -> object:
    """Parse the duration of a variable, which may be a plain number. Raises ValueError."""
    if not isinstance(value, str):
        return value
    return float(value) if _PLAIN_SECONDS.fullmatch(value.strip()) else _duration(value)


def _statuses(value: object) -> object:
    if isinstance(value, frozenset):
        return value
    items = value if isinstance(value, list) else [value]
    parsed: set[int] = set()
    for item in items:
        match = None if isinstance(item, bool) else _STATUSES.fullmatch(str(item))
        if match is None or not 100 <= int(match[1]) <= int(match[2] or match[1]) <= 599:
            raise ValueError(f"{item!r}: needs statuses from 100 to 599, as in 200, 200-399 or [200, 301-308]")
        parsed.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(parsed)


def lower(value: object) -> object:
    """Strip a text and fold it to lower case."""
    return value.strip().lower() if isinstance(value, str) else value


def off_or_lower(value: object) -> object:
    """Return "off" for false, as which YAML 1.1 reads the word off; lower() for the rest."""
    return "off" if value is False or (isinstance(value, Written) and switch(value) is False) else lower(value)


def none_if_empty(value: object) -> object:
    """Return None for an empty text."""
    return None if isinstance(value, str) and not value.strip() else value


def not_empty(value: object) -> object:
    """Refuse an empty text. Raises ValueError."""
    return value if not isinstance(value, str) or value.strip() else _refuse("must not be empty")


def not_empty_list(value: object) -> object:
    """Refuse an empty list, before its items are validated. Raises ValueError."""
    return value if not isinstance(value, list | tuple) or value else _refuse("needs at least one")


def not_null(value: object) -> object:
    """Refuse a key without a value. Raises ValueError."""
    return value if value is not None else _refuse("has no value")


# JSON Schema, for editors


def _matching(pattern: str, description: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "description": description}


def _one_or_list(text: dict[str, Any], item: dict[str, Any], **of_list: Any) -> WithJsonSchema:
    listed = {"type": "array", "items": item, "description": "A list", **of_list}
    return WithJsonSchema({"anyOf": [text, listed]})


_PORT_NUMBER: Final = "([0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ADDRESS: Final = rf"([0-9.]+|\[[0-9A-Fa-f:.]+\]):{_PORT_NUMBER}"
_SERVER: Final = rf"([0-9.]+|\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*\.?):(?!0+$){_PORT_NUMBER}"
_LISTEN: Final = rf"(\*:{_PORT_NUMBER}|{_ADDRESS})"
_NO_HOST_BITS: Final = "".join(
    rf"(?!([0-9]+\.){{{octets}}}(?!(0+\.){{{3 - octets}}}0+/)[0-9.]+/{8 * octets}(?![0-9.]))" for octets in (1, 2, 3)
)
"""Of IPv4 networks of whole octets; those of the others cannot be said by a pattern."""
_NETWORK: Final = (
    rf"{_NO_HOST_BITS}([0-9.]+(/([0-9]|[12][0-9]|3[0-2]|[0-9.]{{7,}}))?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/[0-9]{{1,3}})?)"
)
_STATUS: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599, "description": "A status"},
        _matching("^[1-5][0-9]{2}(-[1-5][0-9]{2})?$", "A status, or the first and the last of a range"),
    ],
    "description": "A status or a range of them",
}
_DURATION_SCHEMA: Final = {
    "anyOf": [
        _matching(f"^{durations.PATTERN}$", "With units: 500ms, 10s, 1m30s, 2h, 10d"),
        {"type": "number", "minimum": 0.01, "maximum": 31_536_000, "description": "Seconds"},
    ]
}

_SWITCH_SCHEMA: Final = {
    "anyOf": [
        {"type": "boolean", "description": "on or off to YAML 1.1; true or false"},
        {"enum": ["on", "off"], "description": "on or off"},
    ]
}

# The types

Whole = Annotated[StrictInt, BeforeValidator(whole)]
Number = Annotated[StrictFloat, BeforeValidator(number)]
Seconds = Annotated[float, Field(ge=0.01, le=31_536_000, allow_inf_nan=False)]
Duration = Annotated[Seconds, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, written 500ms, 10s, 1m30s, 2h, 10d or as a number; 10 ms to a year."""
WrittenSeconds = BeforeValidator(_seconds)
"""Makes a variable in seconds take the durations of the file as well."""
SecondsVariable = Annotated[Seconds, WrittenSeconds]
Region = Annotated[str, BeforeValidator(lower), Field(pattern=patterns.REGION)]
DnsDomain = Annotated[str, BeforeValidator(_domain)]
ListenAddresses = Annotated[
    tuple[ListenAddress, ...],
    BeforeValidator(listen_addresses),
    _one_or_list(
        _matching(rf"^\s*{_LISTEN}(\s*,\s*{_LISTEN})*[\s,]*$", "address:port, or several with commas between them"),
        _matching(f"^{_LISTEN}$", "address:port"),
        minItems=1,
    ),
]
OneListenAddress = Annotated[
    ListenAddress, BeforeValidator(one_listen_address), WithJsonSchema(_matching(f"^{_ADDRESS}$", "address:port"))
]
ServerAddress = Annotated[
    ListenAddress,
    BeforeValidator(server_address),
    WithJsonSchema(_matching(f"^{_SERVER}$", "address:port or name:port")),
]
Networks = Annotated[
    tuple[IPNetwork, ...],
    BeforeValidator(_networks),
    _one_or_list(
        _matching(rf"^\s*({_NETWORK}(\s*,\s*{_NETWORK})*)?[\s,]*$", "A network, or several with commas between them"),
        _matching(f"^{_NETWORK}$", "A network, without host bits"),
    ),
]
EtcdEndpoints = Annotated[tuple[str, ...], BeforeValidator(_etcd_endpoints)]
Statuses = Annotated[frozenset[int], BeforeValidator(_statuses), _one_or_list(_STATUS, _STATUS)]
Switch = Annotated[StrictBool, BeforeValidator(switch), WithJsonSchema(_SWITCH_SCHEMA)]
"""A boolean, written true, false, on or off; the last two also in quotes."""
SendProxy = Annotated[
    Literal["off", "v1", "v2"],
    BeforeValidator(off_or_lower),
    WithJsonSchema({"enum": ["off", "v1", "v2", False], "type": ["string", "boolean"]}),
]
HealthCheckType = Annotated[
    Literal["off", "tcp", "http"],
    BeforeValidator(off_or_lower),
    WithJsonSchema({"enum": ["off", "tcp", "http", False], "type": ["string", "boolean"]}),
]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)]
LogFormat = Annotated[Literal["json", "text"], BeforeValidator(lower)]
