"""The PROXY protocol, versions 1 and 2: a proxy tells the next one the client's address.

The source of every rule is HAProxy's specification (haproxy/doc/proxy-protocol.txt, 2020/03/05), cited by section.
Where it leaves a choice to the receiver, a comment gives the choice and its reason.
"""

import re
import struct
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final, Literal

Address = tuple[str, int]

_V1_MAX_BYTES: Final = 107  # bytes with the CRLF (§2.1)
_V1_OPENINGS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r\n")
_V1_ALPHABET: Final = b"0123456789abcdefABCDEF:. "
_V1_PORT: Final = re.compile("0|[1-9][0-9]{0,4}")

_V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16  # bytes before the address block: signature, version and command, family, length
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_TCP4, _TCP6, _UNIX_STREAM = 0x11, 0x21, 0x31
_V2_ADDRESS_BLOCK: Final = {_TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}  # bytes
_V2_TCP4: Final = struct.Struct("!4s4sHH")
_V2_TCP6: Final = struct.Struct("!16s16sHH")
_TLV: Final = struct.Struct("!BH")
_TLV_CRC32C, _TLV_NOOP = 0x03, 0x04

# The length field would allow 64 KiB. The specification counts on a header smaller than an MSS (§2.2): this
# leaves room for a client certificate among the TLVs, and bounds what a peer can make us store and checksum.
MAX_HEADER: Final = _V2_FIXED + 4096

_V4_MAPPED: Final = bytes(10) + b"\xff\xff"


class ProxyProtocolError(ValueError):
    """The bytes are not, and cannot become, a PROXY protocol header.

    `reason` is one of a fixed set of texts, without bytes of the peer, so it is safe in a log or a metric label.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason: Final = reason


@dataclass(frozen=True, slots=True)
class Header:
    """A complete header: its `size` in bytes, and its end points as (IP address, port 0-65535).

    Both end points are None if the header has none that we can use (LOCAL, UNKNOWN, UNSPEC, UNIX): then the socket's
    own peer is the client. Addresses are in canonical text; IPv4-mapped ones stay IPv6.
    """

    size: int
    source: Address | None
    destination: Address | None
    tlvs: bytes = b""
    """What version 2 says beyond that (§2.2), as it came, without padding and checksum; only with end points."""


def parse(data: bytes | bytearray | memoryview) -> Header | None:
    """Parse the header at the start of `data`; return None if more bytes are needed, at most MAX_HEADER in all.

    Raises ProxyProtocolError as soon as no further bytes could make the header valid, except that v1 addresses and v2
    TLVs are checked only when it is complete (§2.1, §2.2).
    """
    start = bytes(data[:_V1_MAX_BYTES])
    if start.startswith(_V2_SIGNATURE):
        return _parse_v2(data)
    if start.startswith(_V1_OPENINGS):
        return _parse_v1(start)
    if any(opening.startswith(start) for opening in (_V2_SIGNATURE, *_V1_OPENINGS)):
        return None
    if start.startswith(b"PROXY "):
        raise ProxyProtocolError("v1: protocol is not TCP4, TCP6 or UNKNOWN")
    raise ProxyProtocolError("no PROXY protocol signature")


LOCAL_HEADERS: Final = {"v1": b"PROXY UNKNOWN\r\n", "v2": _V2_SIGNATURE + b"\x20\x00\x00\x00"}
"""Headers of a connection that is the proxy's own, such as a probe (PROXY protocol, section 2.2)."""


def encode(version: Literal[1, 2], source: Address, destination: Address, tlvs: bytes = b"") -> bytes:
    """Return the header with these end points, each an (IP address, port 0-65535), and the TLVs of a Header.

    Version 1 has no TLVs. IPv4-mapped addresses are sent as IPv4. If only one side is IPv4, both are sent as IPv6, with
    that one mapped. Scope ids (fe80::1%eth0) mean nothing to another machine and are left out. Raises ValueError if an
    end point is not an IP address and a port.
    """
    source_ip, destination_ip = _packed(source[0]), _packed(destination[0])
    if len(source_ip) != len(destination_ip):
        source_ip, destination_ip = _widened(source_ip), _widened(destination_ip)
    is_ipv4 = len(source_ip) == 4
    ports = source[1], destination[1]
    if not all(0 <= port <= 65535 for port in ports):
        raise ValueError(f"not a port: {ports}")
    if version == 2:
        family, layout = (_TCP4, _V2_TCP4) if is_ipv4 else (_TCP6, _V2_TCP6)
        fixed = _V2_SIGNATURE + struct.pack("!BBH", _V2_PROXY, family, layout.size + len(tlvs))
        return fixed + layout.pack(source_ip, destination_ip, *ports) + tlvs
    name, af = ("TCP4", AF_INET) if is_ipv4 else ("TCP6", AF_INET6)
    ips = f"{inet_ntop(af, source_ip)} {inet_ntop(af, destination_ip)}"
    return f"PROXY {name} {ips} {ports[0]} {ports[1]}\r\n".encode("ascii")


def _packed(ip: str) -> bytes:
    """Pack an IP address: 4 bytes for IPv4, mapped or not, else 16. Raises ValueError."""
    ip = ip.partition("%")[0]
    try:
        packed = inet_pton(AF_INET6 if ":" in ip else AF_INET, ip)
    except OSError:
        raise ValueError(f"not an IP address: {ip!r}") from None
    return packed[12:] if packed.startswith(_V4_MAPPED) else packed


def _widened(packed: bytes) -> bytes:
    return _V4_MAPPED + packed if len(packed) == 4 else packed


def _parse_v1(line: bytes) -> Header | None:
    """Parse a line with a valid opening, cut to the maximum length."""
    end = line.find(b"\r\n")
    is_unknown = line.startswith(b"PROXY UNKNOWN")
    # Everything after UNKNOWN is ignored (§2.1).
    if not is_unknown:
        so_far = line[11:end] if end >= 0 else line[11:].removesuffix(b"\r")
        if so_far.translate(None, _V1_ALPHABET):
            raise ProxyProtocolError("v1: a byte that is not part of any address or port")
    if end < 0:
        if len(line) == _V1_MAX_BYTES:
            raise ProxyProtocolError("v1: no CRLF within 107 bytes")
        return None
    if is_unknown:
        return Header(end + 2, None, None)
    fields = line[11:end].decode("ascii").split(" ")
    if len(fields) != 4:
        raise ProxyProtocolError("v1: not two addresses and two ports, each after one space")
    source, destination, source_port, destination_port = fields
    family = AF_INET if line.startswith(b"PROXY TCP4") else AF_INET6
    return Header(
        end + 2,
        (_v1_address(family, source), _v1_port(source_port)),
        (_v1_address(family, destination), _v1_port(destination_port)),
    )


def _v1_address(family: int, text: str) -> str:
    """Check an address of the stated family, and return it in canonical form.

    A dotted tail in IPv6 (::ffff:192.0.2.1) is not in the grammar of §2.1, but every sender that uses inet_ntop writes
    it, including HAProxy and ourselves.
    """
    try:
        return inet_ntop(family, inet_pton(family, text))
    except OSError:
        raise ProxyProtocolError("v1: not an address of the stated family") from None


def _v1_port(text: str) -> int:
    if not _V1_PORT.fullmatch(text) or int(text) > 65535:
        raise ProxyProtocolError("v1: not a port from 0 to 65535 without leading zeros")
    return int(text)


def _parse_v2(data: bytes | bytearray | memoryview) -> Header | None:
    """Parse a header with a valid signature.

    The block of a LOCAL or UNSPEC header is skipped unread: §2.2 says to discard it together with the family, and the
    size of its address part is unknown, so TLVs cannot be located.
    """
    if len(data) > 12:
        _check_v2_command(data[12])
    if len(data) > 13 and data[12] == _V2_PROXY:
        _check_v2_family(data[13])
    if len(data) < _V2_FIXED:
        return None
    size = _V2_FIXED + (data[14] << 8 | data[15])
    if size > MAX_HEADER:
        raise ProxyProtocolError("v2: header longer than 4112 bytes")
    family = data[13]
    address_block = _V2_ADDRESS_BLOCK.get(family) if data[12] == _V2_PROXY else None
    if address_block is not None and size < _V2_FIXED + address_block:
        raise ProxyProtocolError("v2: length shorter than the addresses of the family")
    if len(data) < size:
        return None
    if address_block is None:
        return Header(size, None, None)
    tlvs = _checked_v2_tlvs(bytes(data[:size]), _V2_FIXED + address_block)
    if family == _UNIX_STREAM:
        return Header(size, None, None)
    layout, af = (_V2_TCP4, AF_INET) if family == _TCP4 else (_V2_TCP6, AF_INET6)
    source, destination, source_port, destination_port = layout.unpack_from(data, _V2_FIXED)
    return Header(size, (inet_ntop(af, source), source_port), (inet_ntop(af, destination), destination_port), tlvs)


def _check_v2_command(version_and_command: int) -> None:
    if version_and_command >> 4 != 2:
        raise ProxyProtocolError("v2: version is not 2")
    if version_and_command not in (_V2_LOCAL, _V2_PROXY):
        raise ProxyProtocolError("v2: command is not LOCAL or PROXY")


def _check_v2_family(family_and_protocol: int) -> None:
    """Check the 14th byte: the family must be UNSPEC, INET, INET6 or UNIX, the protocol UNSPEC or STREAM.

    §2.2 lets a receiver without UDP either use the socket's peer or refuse. We refuse: no datagram can arrive over this
    TCP connection, so the sender is misconfigured, and its address would be taken for the client's.
    """
    if family_and_protocol >> 4 > 3:
        raise ProxyProtocolError("v2: unassigned address family")
    if family_and_protocol & 15 == 2:
        raise ProxyProtocolError("v2: datagram protocol on a TCP connection")
    if family_and_protocol & 15 > 2:
        raise ProxyProtocolError("v2: unassigned transport protocol")


def _checked_v2_tlvs(header: bytes, offset: int) -> bytes:
    """Return the TLVs from `offset` to the end of the header that may be passed on.

    Each must fit, and a checksum must match (§2.2.3).
    """
    checksum_at, kept = None, b""
    while offset < len(header):
        value_at = offset + _TLV.size
        if value_at > len(header):
            raise ProxyProtocolError("v2: TLV goes past the end of the header")
        kind, length = _TLV.unpack_from(header, offset)
        offset = value_at + length
        if offset > len(header):
            raise ProxyProtocolError("v2: TLV goes past the end of the header")
        if kind not in (_TLV_CRC32C, _TLV_NOOP):
            kept += header[value_at - _TLV.size : offset]
        elif kind == _TLV_CRC32C:
            # With two checksums it would be undefined which bytes to zero.
            if length != 4 or checksum_at is not None:
                raise ProxyProtocolError("v2: not exactly one CRC32C of four bytes")
            checksum_at = value_at
    if checksum_at is not None:
        zeroed = header[:checksum_at] + bytes(4) + header[checksum_at + 4 :]
        if _crc32c(zeroed) != int.from_bytes(header[checksum_at : checksum_at + 4], "big"):
            raise ProxyProtocolError("v2: wrong CRC32C")
    return kept


def _crc32c_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, bits reflected
    return byte


_CRC32C_TABLE: Final = tuple(map(_crc32c_of_byte, range(256)))


def _crc32c(data: bytes) -> int:
    """Compute the checksum of RFC 4960 appendix B. It takes about 0.15 µs per byte, hence the small MAX_HEADER."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
