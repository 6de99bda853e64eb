"""The stacks of all greenlets and threads as texts of bounded length, one for those that are alike."""

from __future__ import annotations

import gc
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FrameType
from typing import Final

from greenlet import greenlet

MAX_STACKS: Final = 100
MAX_FRAMES: Final = 20
"""Of one stack, the innermost."""

_Stack = tuple[str, tuple[tuple[CodeType, int], ...]]


def stacks() -> list[str]:
    """Return a text for each different stack, the most frequent first; at most MAX_STACKS, then how many more."""
    counts, frames = Counter[_Stack](), dict[_Stack, FrameType]()
    for kind, frame in _running():
        stack = kind, tuple((one.f_code, line) for one, line in islice(traceback.walk_stack(frame), MAX_FRAMES))
        counts[stack] += 1
        frames[stack] = frame
    texts = []
    for stack, count in counts.most_common(MAX_STACKS):
        lines = traceback.format_stack(frames[stack], MAX_FRAMES)
        texts.append(f"{count} × {stack[0]}\n{''.join(lines).rstrip()}")
    left_out = len(counts) - MAX_STACKS
    return texts if left_out <= 0 else [*texts, f"{left_out} more different stacks"]


def _running() -> Iterator[tuple[str, FrameType]]:
    for frame in sys._current_frames().values():
        yield "thread", frame
    for one in gc.get_objects():
        if isinstance(one, greenlet) and one.gr_frame is not None:
            yield "greenlet", one.gr_frame
