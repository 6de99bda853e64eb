"""The command that runs the edge."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

import click
import gevent
from loguru import logger

from app.commands.configuration import configuration_options, given, load_or_exit
from app.commands.env_file import log_env_file
from app.commands.output import fail
from app.commands.start_messages import print_ready, worded
from app.commands.systemd import close_unfit, systemd_or_exit
from app.config import Config, load, variable
from app.domain.stored import StoreError
from app.edge.edge import Edge
from app.edge.garbage import everything_visible, tame_garbage_collector
from app.edge.preflight import geo_fault, preflight
from app.edge.stacks import stacks
from app.inbound.listener import BindError
from app.outbound import json_log
from app.outbound.json_log import JsonLog
from app.outbound.maxmind_geo import GeoDatabaseError
from app.outbound.systemd_sockets import PassedSockets

THREAD_SWITCH_SECONDS: Final = 0.0005
"""How long a busy thread may keep the interpreter from the event loop (CPython's default is 5 ms)."""


@click.command()
@configuration_options
def serve(**options: str | None) -> None:
    """Run the edge until SIGTERM or SIGINT, then drain. SIGHUP reads the configuration file again."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the edge can reload: unhandled, it would end the process
    overrides = given(options)
    notifier, passed = systemd_or_exit()
    config, log = _prepared(overrides, passed)
    sys.setswitchinterval(THREAD_SWITCH_SECONDS)
    gevent.get_hub().SYSTEM_ERROR = ()  # sys.exit in a request handler's greenlet must not end the edge
    try:
        edge = Edge(config, log, lambda: load(os.environ, overrides=overrides), notifier, passed)
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, edge.request_stop)
        gevent.signal_handler(signal.SIGHUP, edge.reload)
        gevent.signal_handler(signal.SIGUSR1, _log_greenlets)
        edge.start()
    except GeoDatabaseError as error:
        fail("edgeproxy", geo_fault(config, error))
    except BindError as error:
        fail("edgeproxy", worded(config, error))
    except StoreError as error:
        fail("edgeproxy", str(error))
    if config.log_path is not None:
        print_ready(edge)
    tame_garbage_collector()
    code = edge.run()
    sys.stdout.flush()
    # Without the interpreter's own exit, which would wait for idle threads of the pools.
    os._exit(code)


def _prepared(overrides: Mapping[str, str], passed: PassedSockets) -> tuple[Config, JsonLog]:
    """Load the configuration, try what it needs, and open the log; or print every fault and exit with 2.

    Closes the passed sockets that fit no frontend.
    """
    config = load_or_exit(overrides)
    found = preflight(config, passed)
    if found.faults or found.taken:
        fail("edgeproxy", *(worded(config, fault) for fault in (*found.faults, *found.taken)))
    try:
        log = json_log.configure(
            config.log_path,
            level=config.log_level,
            format=config.log_format,
            keeps_tail=config.admin_listen_addr is not None,
        )
    except OSError as error:
        fail("edgeproxy", f"{variable('log_path')}={str(config.log_path)!r}: {error.strerror}")
    log_env_file()
    for warning in found.warnings:
        logger.warning("configuration: {}", warning)
    close_unfit(passed, config)
    return config, log


def _log_greenlets() -> None:
    """Handle SIGUSR1: log the stacks of all greenlets and threads, an event for each different one."""
    for text in everything_visible(stacks):
        logger.info("stack of {}", text)
