"""What a host name is: labels of letters, digits and hyphens (RFC 952, RFC 1123 section 2.1)."""

from __future__ import annotations

import re
from typing import Final

_LONGEST_NAME: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def is_host_name(text: str) -> bool:
    """Say whether a text in lower case is a host name; a dot at its end says that nothing is to be added to it.

    The last label is not all digits: 10.0.0.256 is an address with a fault in it, not the name of anything.
    """
    labels = text.removesuffix(".").split(".")
    if len(text) > _LONGEST_NAME or labels[-1].isdigit():
        return False
    return all(_LABEL.fullmatch(label) for label in labels)
