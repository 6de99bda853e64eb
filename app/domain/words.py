"""Words for messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count and its noun: 1 lease, 2 leases."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: list[str], longest: int) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - longest} more" if len(names) > longest else ""
    return ", ".join(names[:longest]) + more
