"""Fixtures for tests of actors: no actor outlives its test, and the log can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pykka
import pytest
from loguru import logger


@pytest.fixture(autouse=True)
def no_actor_outlives_its_test() -> Iterator[None]:
    yield
    for actor in reversed(pykka.ActorRegistry.get_all()):
        with suppress(pykka.Timeout):  # killed by a test: it cannot stop any more
            actor.stop(timeout=0.5)
        pykka.ActorRegistry.unregister(actor)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Level and text of everything logged during the test."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG", format="{level}: {message}")
    yield lines
    logger.remove(sink)
