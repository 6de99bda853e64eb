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
from app.domain.geography import region_of
from app.domain.model import GeoInfo
from app.outbound.maxmind_validation import validate

SHIPPED_DATABASE: Final = Path(__file__).parent.parent / "data" / "country.mmdb.xz"

_KNOWN_COUNTRIES: Final = 256
"""GeoInfo objects cached, one per country."""


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
        self._infos: dict[str, GeoInfo] = {}
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
            country = _country_of(record) if record else None
        except (ValueError, maxminddb.InvalidDatabaseError):  # not an address; a damaged record
            return None
        if country is None:
            return None
        info = self._infos.get(country)
        if info is None and len(self._infos) < _KNOWN_COUNTRIES:
            info = self._infos[country] = GeoInfo(country, region_of(country))
        return info or GeoInfo(country, region_of(country))

    def ipv4_networks(self) -> Iterator[tuple[str, int, int]]:
        """Yield (country, first address, number of addresses) of every IPv4 network that has a country."""
        for network, record in self._reader:
            if network.version != 4:  # IPv4 comes first: it is ::/96
                return
            country = _country_of(record)
            if country is not None:
                yield country, int(network.network_address), 1 << 32 - network.prefixlen

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
            content = self._path.read_bytes()
            in_memory = _copy_to_memory(lzma.decompress(content) if self._path.suffix == ".xz" else content)
        except lzma.LZMAError as error:
            self._identity = identity
            raise GeoDatabaseError(f"{self._path}: {error}") from None
        except OSError as error:
            raise GeoDatabaseError(f"{self._path}: {error}") from None
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
        validate(in_memory.read(), reader.metadata())
    except Exception as error:  # on a damaged file the decoder raises all kinds of errors
        raise GeoDatabaseError(f"{path}: is not a usable country database: {error}") from None
    return reader


def _country_of(record: Any) -> str | None:
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    # Some databases have the string 'None' or '' for "no country".
    return code.upper() if isinstance(code, str) and len(code) == 2 else None


def open_geo(setting: str) -> MaxmindGeo | None:
    """Open the country database that GEOIP_PATH selects; None for `off`. Raises GeoDatabaseError."""
    if setting.strip().lower() == "off":
        return None
    return MaxmindGeo(Path(setting) if setting else SHIPPED_DATABASE)
