"""`print` in a handler: writes to the log instead of the edge's standard output, within a size and a rate."""

from __future__ import annotations

import builtins
import io
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from loguru import logger

MAX_CHARACTERS: Final = 4000
LINES_PER_SECOND: Final = 20.0
BURST: Final = 100.0


def log_print(endpoint_id: str, number: int) -> Callable[..., None]:
    """Return a `print` for a version of an endpoint's handler.

    What it prints to the standard streams is one event of level INFO, cut at MAX_CHARACTERS. Beyond LINES_PER_SECOND,
    after a burst, events are left out; the next one says how many in `left_out`. To another `file` it prints as usual.
    """
    allowed, refilled_at, left_out = BURST, time.monotonic(), 0

    def print(*values: object, **options: Any) -> None:
        nonlocal allowed, refilled_at, left_out
        if options.get("file") not in (None, sys.stdout, sys.stderr):
            builtins.print(*values, **options)
            return
        now = time.monotonic()
        allowed, refilled_at = min(BURST, allowed + (now - refilled_at) * LINES_PER_SECOND), now
        if allowed < 1:
            left_out += 1
            return
        text = io.StringIO()
        builtins.print(*values, **{**options, "file": text})
        said = text.getvalue().removesuffix("\n")
        fields = {"left_out": left_out} if left_out else {}
        allowed, left_out = allowed - 1, 0
        cut = said if len(said) <= MAX_CHARACTERS else f"{said[:MAX_CHARACTERS]}…"
        logger.bind(endpoint=endpoint_id, version=number, **fields).opt(depth=1).info("{}", cut)

    return print
