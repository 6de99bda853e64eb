"""Fixtures that several files of tests share."""

from tests.integration.service_manager import listening, managed, manager

__all__ = ["listening", "managed", "manager"]
