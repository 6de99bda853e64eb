"""GeoResolver backed by a MaxMind DB file: the one in app/data or the operator's, replaceable while running.

The file is copied into memory (a memfd) and not mapped from disk, because truncating a mapped file kills the process
with SIGBUS. The C reader opens the memfd by its /proc path, so it keeps its full speed.
"""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import maxminddb

from app.domain.client import unmapped
from app.domain.geography import located
from app.domain.model import GeoInfo
from app.outbound.maxmind_validation import validate
from app.outbound.regular_file import read_regular

SHIPPED_DATABASE: Final = Path(__file__).parent.parent / "data" / "country.mmdb.xz"

_KNOWN_PLACES: Final = 256
"""Locations cached, one for what records say."""


class GeoDatabaseError(Exception):
    """The file cannot be read or is not a usable country database."""


@dataclass(frozen=True, slots=True)
class _FileIdentity:
    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> _FileIdentity:
        stat = path.stat()
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class MaxmindGeo:
    """Resolves addresses to countries.

    Reads both MaxMind's schema (`country.iso_code`) and the flat one (`country_code`).
    """

    def __init__(self, path: Path = SHIPPED_DATABASE) -> None:
        """Open a database, `.xz` or plain. Raises GeoDatabaseError."""
        self._path = path
        self._identity: _FileIdentity | None = None
        self._infos: dict[tuple[str | None, str | None], GeoInfo | None] = {}
        self._reader: Any = None
        self.reload()

    @property
    def built_at(self) -> int:
        """Build time of the database in Unix seconds."""
        return int(self._reader.metadata().build_epoch)

    @property
    def database_type(self) -> str:
        return str(self._reader.metadata().database_type)

    def resolve(self, address: str) -> GeoInfo | None:
        """Return country and region of an IP address, or None if the database has no country for it."""
        try:
            record = self._reader.get(unmapped(address))
        except (ValueError, maxminddb.InvalidDatabaseError):  # not an address; a damaged record
            return None
        if not record:
            return None
        said = _said_by(record)
        if said not in self._infos and len(self._infos) < _KNOWN_PLACES:
            self._infos[said] = located(*said)
        return self._infos[said] if said in self._infos else located(*said)

    def ipv4_networks(self) -> Iterator[tuple[str, int, int]]:
        """Yield (country, first address, number of addresses) of every IPv4 network that has a country."""
        for network, record in self._reader:
            if network.version != 4:  # IPv4 comes first: it is ::/96
                return
            place = located(*_said_by(record))
            if place is not None and place.country is not None:
                yield place.country, int(network.network_address), 1 << 32 - network.prefixlen

    def has_changed(self) -> bool:
        """Return whether the file was replaced or rewritten since it was read. A missing file counts as unchanged."""
        try:
            return _FileIdentity.of(self._path) != self._identity
        except OSError:
            return False

    def reload(self) -> None:
        """Read the file again. Raises GeoDatabaseError and keeps the old database. Blocks: call it off the event loop.

        After invalid content, has_changed() stays false until the file changes; after a read error, it is true.
        """
        identity = self._identity = None
        try:
            identity = _FileIdentity.of(self._path)
            content = read_regular(self._path)
            in_memory = _copy_to_memory(lzma.decompress(content) if self._path.suffix == ".xz" else content)
        except lzma.LZMAError as error:
            self._identity = identity
            raise GeoDatabaseError(f"{self._path}: {error}") from None
        except OSError as error:
            raise GeoDatabaseError(f"{self._path}: {error.strerror or error}") from None
        with in_memory:
            self._identity = identity
            self._reader = _open_validated(in_memory, self._path)


def _copy_to_memory(content: bytes) -> BinaryIO:
    """Return a file in memory with this content. Raises OSError."""
    in_memory = os.fdopen(os.memfd_create("country-database", os.MFD_CLOEXEC), "w+b")
    try:
        in_memory.write(content)
        in_memory.flush()
        # The reader opens it this way, and would report a lack of descriptors as invalid content.
        with open(f"/proc/self/fd/{in_memory.fileno()}", "rb"):
            return in_memory
    except OSError:
        in_memory.close()
        raise


def _open_validated(in_memory: BinaryIO, path: Path) -> Any:
    """Open a database in memory and validate all of it. The reader keeps the memory alive."""
    try:
        reader = maxminddb.open_database(f"/proc/self/fd/{in_memory.fileno()}", maxminddb.MODE_MMAP_EXT)
        in_memory.seek(0)
        records = validate(in_memory.read(), reader.metadata())
        if not any(located(*_said_by(record)) for record in records):
            raise ValueError(f"no record of this {reader.metadata().database_type} database has a country")
    except Exception as error:  # on a damaged file the decoder raises all kinds of errors
        text = str(error).replace(f"/proc/self/fd/{in_memory.fileno()}", str(path))
        raise GeoDatabaseError(f"{path}: is not a usable country database: {text}") from None
    return reader


def _said_by(record: Any) -> tuple[str | None, str | None]:
    """Return what a record gives as country and as continent, whatever it is."""
    country, continent = record.get("country"), record.get("continent")
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    return _text(code), _text(continent.get("code") if isinstance(continent, dict) else None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def open_geo(setting: str) -> MaxmindGeo | None:
    """Open the country database that GEOIP_PATH selects; None for `off`. Raises GeoDatabaseError."""
    if setting.strip().lower() == "off":
        return None
    return MaxmindGeo(Path(setting) if setting else SHIPPED_DATABASE)
