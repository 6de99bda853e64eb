"""What all tests share: gevent first, then the harness's fixtures."""

from gevent import monkey

monkey.patch_all()

from tests.harness import backend_row, edge, origin, routing_db

__all__ = ["backend_row", "edge", "origin", "routing_db"]
