"""Words for messages."""

from __future__ import annotations


def counted(count: int, noun: str, form: str = "") -> str:
    """Return "1 connection", "2 connections". `form` is the format of the number, such as "," for 1,000."""
    return f"{count:{form}} {noun}" if count == 1 else f"{count:{form}} {noun}s"


def listed(names: list[str], longest: int) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - longest} more" if len(names) > longest else ""
    return ", ".join(names[:longest]) + more
