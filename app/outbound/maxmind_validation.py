"""Checks a whole MaxMind DB before it serves: every record of the search tree leads somewhere inside the file.

Looking addresses up would not do: a damaged stretch of a file answers "unknown" for its part of the world, and even
thousands of look-ups may miss it. https://maxmind.github.io/MaxMind-DB/ describes the format.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any, Final

from maxminddb.decoder import Decoder

_SEPARATOR_BYTES: Final = 16
_METADATA_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_DECODED_AT_MOST: Final = 10_000
"""A country database has some hundred distinct records; of a larger one this many are decoded, evenly spread."""
_HIGH_HALF: Final = bytes(byte >> 4 for byte in range(256))
_LOW_HALF: Final = bytes(byte & 15 for byte in range(256))


def validate(content: bytes, metadata: Any) -> None:
    """Raise ValueError or maxminddb.InvalidDatabaseError when the database cannot be whole."""
    nodes, record_bits = metadata.node_count, metadata.record_size
    tree_bytes = nodes * record_bits // 4
    data_start, data_end = tree_bytes + _SEPARATOR_BYTES, content.rfind(_METADATA_MARKER)
    if data_start > data_end:
        raise ValueError(f"truncated: its search tree ends at byte {data_start}, its data at {data_end}")
    if any(content[tree_bytes:data_start]):
        raise ValueError("damaged: no zeroes between its search tree and its data")
    # A record is a node's number, the number of nodes for "nothing here", or beyond that an offset into the data.
    beyond = {record for record in _records(content[:tree_bytes], record_bits) if record > nodes}
    offsets = sorted(record - nodes + tree_bytes for record in beyond)
    if offsets and not data_start <= offsets[0] <= offsets[-1] < data_end:
        raise ValueError("damaged: its search tree leads outside its data")
    decoder = Decoder(content, data_start)
    for offset in offsets[:: len(offsets) // _DECODED_AT_MOST + 1]:
        value, _ = decoder.decode(offset)
        if not isinstance(value, dict):
            raise ValueError(f"the record at byte {offset} is no map: not a country database")


def _records(tree: bytes, record_bits: int) -> array[int]:
    """Return all records of the search tree, two a node: big-endian numbers of 24, 28 or 32 bits."""
    if record_bits == 32:
        wide = bytearray(tree)
    elif record_bits == 28:  # three bytes left, the high halves of both in one, three bytes right
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
        raise ValueError(f"records of {record_bits} bits are not known")
    records = array("I", bytes(wide))
    if sys.byteorder == "little":
        records.byteswap()
    return records
