"""The command `replicate`: the replicator, a process beside the edge.

honcho ends all processes when the first one of the Procfile has ended. Therefore this one does not end while the edge
drains, and it idles if replication is not configured.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click
from gevent import signal_handler
from gevent.event import Event
from loguru import logger

from app.cluster.process import BadEtcdFiles, Replication
from app.commands.configuration import load_or_exit
from app.commands.env_file import log_env_file
from app.commands.output import fail
from app.config import Config, variable
from app.inbound.listener import BindError
from app.outbound import json_log
from app.outbound.file_lock import Held
from app.outbound.honcho_process import is_started_by_honcho
from app.outbound.unix_drain_notice import wait_for_drain


def _fail(*lines: str) -> NoReturn:
    fail("replicate", *lines)


@click.command()
def replicate() -> None:
    """Replicate the backends in etcd to the routing database, and accept changes of them, until SIGTERM.

    Logs to standard error.
    """
    config = load_or_exit()
    log = json_log.configure(None, level=config.log_level, format=config.log_format, keeps_tail=False)
    log.start()  # its greenlet also keeps the event loop alive while this one waits
    log_env_file()
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal_handler(number, stopping.set)
    if config.is_replicated:
        try:
            replication = Replication(config, log.write_access)
            replication.start()
        except BadEtcdFiles as error:
            log.stop()
            _fail(str(error))
        except BindError as error:
            log.stop()
            _fail(f"{variable('replicator_listen_addr')}: {error}")
        except Held as held:
            log.stop()
            _fail(f"{config.db_path} is replicated already, by {held}")
        except OSError as error:
            log.stop()
            _fail(f"{config.db_path}: {error.strerror}")
        _wait(stopping, config)
        replication.stop()
    else:
        level = "DEBUG" if is_started_by_honcho(os.environ) else "INFO"  # the Procfile starts it on every machine
        logger.log(level, "idle: {} is not set, so nothing is replicated", variable("etcd_endpoints"))
        _wait(stopping, config)
    log.stop()
    sys.stdout.flush()
    os._exit(0)  # like `serve`: threads of the pools may still be running


def _wait(stopping: Event, config: Config) -> None:
    """Wait for a signal and then, while the edge drains, for its end or a second signal."""
    stopping.wait()
    stopping.clear()
    wait_for_drain(config.metrics_listen_addr.port, stopping.wait)
