"""Which word of http1_faults names what the HTTP parser refused.

The parser's own texts cover several faults each. Nothing is accepted or refused here: the head is refused already.
"""

from __future__ import annotations

import re
from typing import Final

from app.wire.http1_faults import TOKEN, BadMessage
from app.wire.http1_framing import add_field, framing_of

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_BARE_CR: Final = re.compile(rb"\r(?!\n)")
_CONTROL: Final = re.compile(rb"[^\t -~\x80-\xff]")


def header_fault(head: bytes) -> str | None:
    """Name the first fault in the shape of the header lines, or in the ends of any line."""
    if _BARE_LF.search(head):
        return "bare_lf"
    if _BARE_CR.search(head):
        return "bare_cr"
    for line in head[:-4].split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if line.startswith((b" ", b"\t")):
            return "obs_fold"
        if not colon:
            return "header_without_colon"
        if TOKEN.fullmatch(name.rstrip(b" \t")) is None:
            return "header_name"
        if name.endswith((b" ", b"\t")):
            return "space_before_colon"
        if _CONTROL.search(value):
            return "header_value"
    return None


def framing_fault(head: bytes, version: bytes) -> str | None:
    """Name the fault in what the headers say of the body; the head has none that header_fault names."""
    known: dict[bytes, bytes] = {}
    try:
        for line in head[:-4].split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() in (b"content-length", b"transfer-encoding"):
                add_field(known, name.lower(), value.strip(b" \t"))
        framing_of(known, version)
    except BadMessage as fault:
        return fault.reason
    return None
