"""Texts that must match a pattern, and the rule of each in words."""

from __future__ import annotations

from typing import Final

NAME: Final = "^[A-Za-z0-9_.-]{1,63}$"
PATH: Final = "^/[!-~]{0,2047}$"
REGION: Final = "^[a-z0-9_-]{0,63}$"
TOKEN_OR_EMPTY: Final = "^[!#$%&'*+.^_`|~0-9A-Za-z-]*$"

RULES: Final = {
    NAME: "needs 1 to 63 letters of ASCII, digits, dots, hyphens and underscores",
    PATH: "needs a path that begins with /, in printable ASCII without spaces",
    REGION: "needs at most 63 letters of ASCII, digits, hyphens and underscores",
    TOKEN_OR_EMPTY: "needs a name without spaces, in ASCII (RFC 9110, section 5.6.2)",
}
