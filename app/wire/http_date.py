"""The value of the Date header, which every response has (RFC 9110, section 6.6.1)."""

from __future__ import annotations

import time
from email.utils import formatdate

_made: tuple[int, bytes] = (0, b"")


def date_now() -> bytes:
    """Return the present time as an IMF-fixdate; made once a second."""
    global _made  # noqa: PLW0603
    second = int(time.time())
    if second != _made[0]:
        _made = second, formatdate(second, usegmt=True).encode()
    return _made[1]
