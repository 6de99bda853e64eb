"""Durations as people write them, the same in the file, in variables and in commands."""

from __future__ import annotations

import re
from typing import Final

RULE: Final = "needs a duration such as 500ms, 10s, 1m30s, 2h or 10d, or a number of seconds"
_UNIT_SECONDS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
PATTERN: Final = "(?=[0-9])" + "".join(rf"([0-9]{{1,12}}(\.[0-9]{{1,9}})?{unit})?" for unit in _UNIT_SECONDS)
"""Units from the largest to the smallest, each at most once."""
_DURATION: Final = re.compile(PATTERN)
_PART: Final = re.compile(r"([0-9.]+)([a-z]+)")


def seconds_of(text: str) -> float | None:
    """Return the seconds of a duration such as 1m30s, None for any other text. A plain number is another text."""
    if _DURATION.fullmatch(text) is None:
        return None
    return sum(float(count) * _UNIT_SECONDS[unit] for count, unit in _PART.findall(text))
