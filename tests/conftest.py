"""What all tests share: gevent first, then the harness's fixtures."""

from gevent import monkey

monkey.patch_all()

from hypothesis import HealthCheck, settings

from tests.harness import backend_row, edge, origin, routing_db

__all__ = ["backend_row", "edge", "origin", "routing_db"]

# Time says nothing about a property: a busy machine draws and runs examples slowly.
settings.register_profile("edge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edge")
