"""What systemd hands to a command that it starts: where to tell how it does, and sockets that listen already."""

from __future__ import annotations

import os

from loguru import logger

from app.commands.output import fail
from app.config import Config, ConfigError
from app.outbound.systemd_notify import Notifier, take_notifier
from app.outbound.systemd_sockets import PassedSockets, take_passed_sockets


def systemd_or_exit() -> tuple[Notifier, PassedSockets]:
    """Take both from the environment, or print every fault and exit with 2."""
    try:
        return take_notifier(os.environ), take_passed_sockets(os.environ)
    except ConfigError as error:
        fail("edgeproxy", *error.faults)


def close_unfit(passed: PassedSockets, config: Config) -> None:
    """Close the sockets on whose address no frontend listens, and log what is passed."""
    wanted = {address for frontend in config.frontends for address in frontend.listen}
    for address in passed.keys() - wanted:
        passed.pop(address).close()
        logger.bind(listener=str(address)).warning(
            "the socket on {} that systemd passed fits no frontend: change the socket unit or the frontends", address
        )
    if passed:
        listeners = [str(address) for address in passed]
        logger.bind(listeners=listeners).info("sockets passed by systemd: {}", ", ".join(listeners))
