"""What systemd hands to a command that it starts: where to tell how it does."""

from __future__ import annotations

import os

from app.commands.output import fail
from app.config import ConfigError
from app.outbound.systemd_notify import Notifier, take_notifier


def notifier_or_exit() -> Notifier:
    """Take it from the environment, or print every fault and exit with 2."""
    try:
        return take_notifier(os.environ)
    except ConfigError as error:
        fail("edgeproxy", *error.faults)
