"""The handlers actor owns the table of handler versions. It translates messages to app.domain.handler_table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from loguru import logger

from actors.handler_messages import (
    AcquireHandler,
    DeployHandler,
    DescribeEndpoints,
    FindEndpoint,
    ReleaseHandler,
    ReplaceEndpoints,
    UndeployHandler,
)
from actors.runtime import GeventActor
from app.domain.handler_table import Dropped, HandlerTable


class HandlersActor(GeventActor):
    """Serves grants from `table`, which outlives a crash of the actor, because requests hold grants of it.

    `on_drop` is called after a version was dropped; its module is then garbage. Nothing is compiled or loaded here.
    """

    def __init__(self, table: HandlerTable, on_drop: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._table = table
        self._on_drop = on_drop

    def handle(self, message: object) -> object:
        table = self._table
        match message:
            case AcquireHandler(grant_id, host, path, method):
                return table.acquire(grant_id, host, path, method)
            case FindEndpoint(host, path, method):
                return table.find(host, path, method)
            case ReleaseHandler(grant_id, failed):
                dropped = table.release(grant_id, failed)
                if dropped is not None:
                    self._log_dropped([dropped])
            case DeployHandler(endpoint_id, version, handler):
                return self._change(lambda: table.swap(endpoint_id, version, handler, time.time()))
            case UndeployHandler(endpoint_id):
                return self._change(lambda: table.undeploy(endpoint_id, time.time()))
            case ReplaceEndpoints(endpoints, routes):
                self._log_dropped(table.replace_endpoints(endpoints, routes, time.time()))
            case DescribeEndpoints():
                return table.views()
            case _:
                return super().handle(message)
        return None

    def _change(self, change: Callable[[], list[Dropped]]) -> bool:
        try:
            dropped = change()
        except KeyError:
            return False
        self._log_dropped(dropped)
        return True

    def _log_dropped(self, dropped: Iterable[Dropped]) -> None:
        for endpoint_id, version in dropped:
            logger.bind(endpoint=endpoint_id, version=version.number).info(
                "endpoint {}: version {} was dropped: no request uses it", endpoint_id, version.number
            )
            self._on_drop()
