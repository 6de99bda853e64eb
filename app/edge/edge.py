"""One edge: the public face of a serving process, for the command that runs it and for programs that embed it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

import gevent
from gevent.event import Event
from loguru import logger

from actors.supervisor import EXIT_CODE
from app.config import Config
from app.edge.build import build
from app.edge.lifecycle import steps
from app.inbound.listeners import Listeners
from app.inbound.status.server import StatusServer
from app.outbound.json_log import JsonLog
from app.outbound.systemd_notify import Notifier
from app.outbound.systemd_sockets import PassedSockets
from app.outbound.unix_drain_notice import notice_of_drain


class Edge:
    """One edge. `start` opens its listeners, `stop` drains and closes them; `run` waits for a signal and then stops.

    To embed it in a program that has called `gevent.monkey.patch_all()` first of all::

        edge = Edge(load(os.environ))       # app.config.load; or load({}, document={"frontends": [...], ...})
        edge.start()
        ...
        edge.stop()

    `log` is where access lines go, by default the configuration's log_path. Events go to loguru.
    """

    def __init__(
        self,
        config: Config,
        log: JsonLog | None = None,
        reread: Callable[[], Config] | None = None,
        notifier: Notifier | None = None,
        passed: PassedSockets | None = None,
    ) -> None:
        """Build everything; open only the log, the country database and the gateway's database.

        `reread` reads the configuration again for a reload; `notifier` tells systemd how the edge does; `passed` are
        sockets that listen already, which the frontends on their addresses take. Raises GeoDatabaseError, StoreError
        (the gateway's database), OSError (the log), BindError (the admin API's certificate).
        """
        self.exit_code = 0
        self._exit = Event()
        self._has_begun = False
        self._undoing = ExitStack()
        has_admin = config.admin_listen_addr is not None
        log = log or JsonLog(config.log_path, config.log_format, keeps_tail=has_admin)
        self._built = build(config, log, reread, self._give_up, notifier or Notifier(), passed or {})
        self.parts = self._built.parts

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.parts.config()

    @property
    def listeners(self) -> Listeners:
        """The listeners of the frontends: their `addresses`, by frontend, once the edge is started."""
        return self.parts.data_plane.listeners

    @property
    def status(self) -> StatusServer:
        """The metrics listener: its `address`, once the edge is started."""
        return self._built.serving.status

    def start(self) -> None:
        """Start the actors, load what they need, open the listeners; once.

        If it raises, everything that was started is stopped again. Raises BindError, StoreError; RuntimeError
        for an edge that was started or stopped before.
        """
        if self._has_begun:
            raise RuntimeError("an edge starts only once: make another one")
        self._has_begun = True
        for warning in self.config.warnings:
            logger.warning("configuration: {}", warning)
        with ExitStack() as undoing:
            for step in steps(self._built):
                undoing.callback(step.undo)  # first, so that a step that fails half-way is undone, too
                step.do()
            self._undoing = undoing.pop_all()

    def stop(self) -> None:
        """Drain, then undo the start in reverse order. Does nothing for an edge that is not started."""
        self._has_begun = True  # an edge that was stopped never starts
        self._undoing.close()

    def run(self) -> int:
        """Serve until a signal, drain, and return the exit code; without a drain if an actor cannot be restarted."""
        self._exit.wait()
        if self.exit_code == 0:
            with notice_of_drain(self.config.metrics_listen_addr.port):
                self.stop()
        else:
            self.parts.log.stop()  # its buffer has the events that led to this
        return self.exit_code

    def request_stop(self) -> None:
        """Handle SIGTERM or SIGINT: end `run` with a drain; the second one ends the process at once."""
        if self._exit.is_set():
            logger.warning("second signal: ending at once")
            self.parts.log.stop()
            os._exit(1)
        self._exit.set()

    def reload(self) -> None:
        """Handle SIGHUP: read the configuration file again, in the background."""
        if self._built.reloader is None:
            with self._built.notice.reloading():  # systemd may wait for it
                logger.warning("SIGHUP: there is no configuration file to read again")
        else:
            gevent.spawn(self._built.reloader.reload)

    def apply(self, config: Config) -> None:
        """Switch to another configuration, all or nothing: on BindError and Draining nothing has changed."""
        self._built.serving.apply(config)

    def _give_up(self, _actor: str) -> None:
        self.exit_code = EXIT_CODE
        self._exit.set()
