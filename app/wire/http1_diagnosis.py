"""Finds the reason in http1_faults for which the HTTP parser refused a head.

The parser's own texts cover several faults each. Nothing is accepted or refused here: the head is already refused.
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
    """Return the first fault in the syntax of the header lines, or in the end of any line."""
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
    """Return the fault in the headers that frame the body. The head must have no fault that header_fault finds."""
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
