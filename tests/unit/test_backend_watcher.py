"""The watcher of the routing database, with a fake repository."""

from app.outbound.backend_watcher import BackendWatcher
from app.ports import BackendSet
from tests.harness import eventually


class Counting:
    """A repository that changes with every check."""

    def __init__(self):
        self.loads = 0

    def has_changed(self):
        return True

    def load(self):
        self.loads += 1
        return BackendSet()

    def close(self):
        pass


def test_it_follows_once_however_often_it_is_started_and_starts_again_after_a_stop():
    repository = Counting()
    watcher = BackendWatcher(lambda: repository, 5, on_change=lambda found: None, on_load=lambda result: None)
    watcher.start()
    watcher.start()
    assert repository.loads == 1
    watcher.stop()
    watcher.start()
    eventually(lambda: repository.loads >= 3)
    watcher.stop()


def test_one_that_follows_nothing_is_not_stale(monkeypatch):
    watcher = BackendWatcher(Counting, 5, on_change=lambda found: None, on_load=lambda result: None)
    monkeypatch.setattr("app.outbound.backend_watcher.SILENCE_SECONDS", 0)
    assert watcher.status.error is None
    watcher.start()
    assert watcher.status.error is not None
    watcher.stop()
