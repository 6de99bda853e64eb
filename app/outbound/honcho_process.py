"""Knows whether honcho has started this process, as one of the Procfile or as a service exported from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_NAME: Final = "HONCHO_PROCESS_NAME"


def is_started_by_honcho(environment: Mapping[str, str]) -> bool:
    """Return whether honcho has set its variable."""
    return _NAME in environment
