"""The page's colours: whatever is written can be read, in light and in dark (WCAG 2.2, 1.4.3: a contrast of 4.5)."""

from __future__ import annotations

import re

import pytest

from tests.harness import ROOT

STYLE = (ROOT / "app/admin/page/page.css").read_text()
STATES = ("healthy", "full", "off", "unknown", "draining", "ejected", "unhealthy")
PILL = 0.14
"""How much of its state's colour is in a pill's background."""
ENOUGH = 4.5

Colour = tuple[float, float, float]


def colours(scheme: str) -> dict[str, Colour]:
    """Return the custom properties that are colours, 0 to 1 a channel."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    found = {}
    for name, digits in re.findall(r"--([\w-]+): #([0-9a-f]{3,6})\b", light + (dark if scheme == "dark" else "")):
        whole = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        red, green, blue = (int(whole[place : place + 2], 16) / 255 for place in (0, 2, 4))
        found[name] = (red, green, blue)
    return found


def luminance(colour: Colour) -> float:
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in colour]
    return sum(share * channel for share, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: Colour, other: Colour) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(one, other, strict=True))
    return red, green, blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_background(scheme: str) -> None:
    known = colours(scheme)
    pairs = [(text, behind) for text in ("ink", "soft", "accent", "unhealthy") for behind in ("paper", "card", "code")]
    pairs += [("accent-ink", "accent"), ("paper", "ink"), ("ink", "land")]
    faint = {pair: contrast(known[pair[0]], known[pair[1]]) for pair in pairs}
    assert {pair: found for pair, found in faint.items() if found < ENOUGH} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_a_state_contrasts_with_its_pill(scheme: str, state: str) -> None:
    known = colours(scheme)
    behind = mixed(known[state], known["card"], PILL)
    assert contrast(known[state], behind) >= ENOUGH, contrast(known[state], behind)
