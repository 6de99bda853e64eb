"""Labels of the internal DNS: how the text of an app, a region or an id becomes one, and who has it when several do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

LONGEST_LABEL: Final = 63
"""RFC 1035 section 2.3.4."""

_NO_LABEL: Final = re.compile(r"[^a-z0-9_-]+")


def label_of(text: str) -> str:
    """Return a text as a label: in lower case, with a hyphen for what is no letter, digit, hyphen or underscore.

    Hyphens at both ends are cut, for resolvers refuse them. Empty where nothing is left or the label is too long.
    """
    label = _NO_LABEL.sub("-", text.lower()).strip("-")
    return label if len(label) <= LONGEST_LABEL else ""


def claims(texts: Iterable[str]) -> dict[str, str]:
    """Return which text has which label.

    Of several that come to one label it is the one that is written like it, else the first by alphabet.
    """
    claimed: dict[str, str] = {}
    for text in sorted(texts):
        label = label_of(text)
        if label and (label not in claimed or text == label):
            claimed[label] = text
    return claimed
