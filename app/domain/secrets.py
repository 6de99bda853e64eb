"""Masks secrets: values under names that suggest a secret, and credentials in URLs and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MASK: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"authorization|cookie|token|secret|passw|passphrase|credential|signature|session|apikey"
    r"|(^|[-_ ])(key|auth|pwd|pass)$",
    re.IGNORECASE,
)
_NOT_SECRET_NAME: Final = re.compile(r"(_file|_path|_secs|_seconds)$", re.IGNORECASE)
_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
_CREDENTIALS: Final = re.compile(r"\b(Basic|Bearer|Digest)\s+\S.*", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"([?&])([^=&\s]+)=([^&\s#]*)")


def masked(value: object) -> object:
    """Return a copy of plain data (mappings, lists, texts, numbers) with every secret replaced."""
    if isinstance(value, Mapping):
        return {name: _masked_under(str(name), held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [masked(one) for one in value]
    return _masked_text(value) if isinstance(value, str) else value


def _masked_under(name: str, value: object) -> object:
    is_secret = _SECRET_NAME.search(name) and not _NOT_SECRET_NAME.search(name)
    if is_secret and value not in (None, "") and not isinstance(value, bool):
        return MASK
    return masked(value)


def _masked_text(text: str) -> str:
    text = _USER_INFO.sub(MASK, text)
    text = _CREDENTIALS.sub(lambda found: f"{found[1]} {MASK}", text)
    return _PARAMETER.sub(lambda found: f"{found[1]}{found[2]}={_masked_under(found[2], found[3])}", text)
