"""Validates a whole MaxMind DB before it is used: every record of the search tree must point inside the file.

Trial look-ups are not enough: a damaged part of a file returns "unknown" for its addresses, which thousands of look-ups
may miss. https://maxmind.github.io/MaxMind-DB/ describes the format.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any, Final

from maxminddb.decoder import Decoder

_SEPARATOR_BYTES: Final = 16
_METADATA_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_MAX_DECODED: Final = 10_000
"""Records decoded, evenly spread. A country database has a few hundred distinct records."""
_HIGH_HALF: Final = bytes(byte >> 4 for byte in range(256))
_LOW_HALF: Final = bytes(byte & 15 for byte in range(256))


def validate(content: bytes, metadata: Any) -> list[dict[str, Any]]:
    """Return the records, at most _MAX_DECODED of them.

    Raises ValueError or maxminddb.InvalidDatabaseError if the database is truncated or damaged.
    """
    nodes, record_bits = metadata.node_count, metadata.record_size
    tree_bytes = nodes * record_bits // 4
    data_start, data_end = tree_bytes + _SEPARATOR_BYTES, content.rfind(_METADATA_MARKER)
    if data_start > data_end:
        raise ValueError(f"truncated: its search tree ends at byte {data_start}, its data at {data_end}")
    if any(content[tree_bytes:data_start]):
        raise ValueError("damaged: no zeroes between its search tree and its data")
    # A record is the number of a node; or the number of nodes, for no data; or above that, an offset into the data.
    beyond = {record for record in _records(content[:tree_bytes], record_bits) if record > nodes}
    offsets = sorted(record - nodes + tree_bytes for record in beyond)
    if offsets and not data_start <= offsets[0] <= offsets[-1] < data_end:
        raise ValueError("damaged: its search tree points outside its data")
    decoder, found = Decoder(content, data_start), []
    for offset in offsets[:: len(offsets) // _MAX_DECODED + 1]:
        value, _ = decoder.decode(offset)
        if not isinstance(value, dict):
            raise ValueError(f"the record at byte {offset} is not a map, so this is not a country database")
        found.append(value)
    return found


def _records(tree: bytes, record_bits: int) -> array[int]:
    """Return all records of the search tree, two per node: big-endian numbers of 24, 28 or 32 bits."""
    if record_bits == 32:
        wide = bytearray(tree)
    elif record_bits == 28:  # three bytes of the left, one with the high halves of both, three of the right
        wide = bytearray(len(tree) // 7 * 8)
        halves = tree[3::7]
        wide[0::8], wide[4::8] = halves.translate(_HIGH_HALF), halves.translate(_LOW_HALF)
        for place in range(3):
            wide[1 + place :: 8], wide[5 + place :: 8] = tree[place::7], tree[4 + place :: 7]
    elif record_bits == 24:
        wide = bytearray(len(tree) // 3 * 4)
        for place in range(3):
            wide[1 + place :: 4] = tree[place::3]
    else:
        raise ValueError(f"records of {record_bits} bits are not supported")
    records = array("I", bytes(wide))
    if sys.byteorder == "little":
        records.byteswap()
    return records
