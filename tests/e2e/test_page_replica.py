"""The page where backends are etcd's: how old the copy is, and what is wrong with it."""

from __future__ import annotations

from tests.harness import eventually
from tests.integration.etcd_servers import etcd_running, pops


def test_the_page_says_how_old_the_replica_is(visit, tmp_path):
    with etcd_running() as etcd, pops(tmp_path) as make:
        etcd.put_backend("a", 1001)
        place = make("gru", etcd.endpoints).start()
        page = visit.page
        visit.sign_in(place.admin)
        page.wait_for("#replica", " s old")
        etcd.put("/edgeproxy/v1/backends/x", "{")
        page.wait_for("#replica", "1 bad")
        (node,) = etcd.nodes
        node.kill()
        eventually(
            lambda: page.evaluate("document.querySelector('#replica').dataset.state") == "unhealthy", 15, "is said"
        )
        assert "refused" in page.evaluate("document.querySelector('#replica').title")


def test_one_machine_has_no_replica_to_speak_of(visit, town):
    town.start()
    visit.sign_in(town.admin)
    assert visit.page.evaluate("document.querySelector('#replica').hidden")
