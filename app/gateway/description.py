"""Describes an exception of a handler, for the log and for its author.

The exception's `__str__` is code of the handler: it may fail, and it may take for ever.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final, NamedTuple

from app.gateway.workers import CodeRaised, TookTooLong, Worker

DESCRIBE_SECONDS: Final = 1.0


class Description(NamedTuple):
    """An exception in words. `text` is its own, `line` the last one of `traceback`."""

    text: str
    line: str
    traceback: str


def describe(error: BaseException, tb: TracebackType | None) -> Description:
    """Describe an exception with this traceback. Never raises, even if the exception's `__str__` does."""
    described = traceback.TracebackException(type(error), error, tb)
    line = list(described.format_exception_only())[-1].rstrip()
    return Description(str(described), line, "".join(described.format()))


def describe_in(worker: Worker, error: BaseException) -> Description:
    """Describe an exception in the worker of its code; by its class alone if that takes over DESCRIBE_SECONDS."""
    try:
        return worker.run_within(DESCRIBE_SECONDS, describe, error, error.__traceback__)
    except (CodeRaised, TookTooLong):  # such as Overrun
        pass
    name = type(error).__name__
    return Description(name, name, "".join([*traceback.format_tb(error.__traceback__), f"{name}\n"]))
