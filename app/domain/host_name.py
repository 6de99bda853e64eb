"""Validates host names: labels of letters, digits and hyphens (RFC 952, RFC 1123 section 2.1)."""

from __future__ import annotations

import re
from typing import Final

_MAX_NAME_CHARACTERS: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def is_host_name(text: str) -> bool:
    """Return whether a text in lower case is a host name. A trailing dot marks it as fully qualified.

    The last label must not be all digits: 10.0.0.256 is a mistyped address, not a name.
    """
    labels = text.removesuffix(".").split(".")
    if len(text) > _MAX_NAME_CHARACTERS or labels[-1].isdigit():
        return False
    return all(_LABEL.fullmatch(label) for label in labels)
