"""Labels of the internal DNS: how apps, regions and ids become labels, and which of several texts wins a label."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MAX_LABEL_CHARACTERS: Final = 63
"""RFC 1035 section 2.3.4."""

_NOT_IN_LABEL: Final = re.compile(r"[^a-z0-9_-]+")


def label_of(text: str) -> str:
    """Return a text as a label: in lower case, a hyphen replacing each run of other characters than a-z, 0-9, - and _.

    Leading and trailing hyphens are removed because resolvers refuse them. The result is empty if nothing is left or
    the label is too long.
    """
    label = _NOT_IN_LABEL.sub("-", text.lower()).strip("-")
    return label if len(label) <= MAX_LABEL_CHARACTERS else ""


def texts_by_label(texts: Iterable[str]) -> dict[str, str]:
    """Map each label to its text.

    If several texts become one label, the text equal to the label gets it, otherwise the first in alphabetical order.
    """
    labelled: dict[str, str] = {}
    for text in sorted(texts):
        label = label_of(text)
        if label and (label not in labelled or text == label):
            labelled[label] = text
    return labelled
