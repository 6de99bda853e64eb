"""The page with backends replicated from etcd: the age and the errors of the replica."""

from __future__ import annotations

from tests.harness import eventually
from tests.integration.etcd_servers import etcd_running, pops


def test_the_page_shows_the_age_of_the_replica(visit, tmp_path):
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
            lambda: page.evaluate("document.querySelector('#replica').dataset.state") == "unhealthy",
            15,
            "the error is shown",
        )
        assert "refused" in page.evaluate("document.querySelector('#replica').title")


def test_an_edge_without_replication_shows_no_replica(visit, town):
    town.start()
    visit.sign_in(town.admin)
    assert visit.page.evaluate("document.querySelector('#replica').hidden")
