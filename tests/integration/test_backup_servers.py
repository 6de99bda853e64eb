"""A backup server of a pool serves while no other can, as in the tests of nginx's upstreams."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from app.domain.selection import ALGORITHMS
from tests.admin_client import admin_of, admin_variables
from tests.commands import command
from tests.harness import eventually, frontend
from tests.integration.peers import refusing_port
from tests.traffic import named, serving, who


def config(servers: list[tuple[int, bool]], *algorithms: str, **check: Any) -> dict[str, Any]:
    """Return a configuration of one frontend and pool per algorithm; servers are (port, is a backup)."""
    servers_of = [{"address": f"127.0.0.1:{port}", "backup": is_backup} for port, is_backup in servers]
    pools = [{"name": name, "servers": servers_of, "health_check": check} for name in algorithms]
    return {"frontends": [frontend(name, name, algorithm=name) for name in algorithms], "backends": pools}


def test_a_backup_serves_the_connection_that_finds_all_others_refusing(edge, origin, subtests):
    with ExitStack() as stack:
        servers = [(refusing_port(stack), False), (origin(named("reserve")), True)]
        proxy = edge(config=config(servers, *ALGORITHMS), GEOIP_PATH="off")
        for algorithm in ALGORITHMS:
            with subtests.test(algorithm):
                assert who(proxy, "127.0.0.2", frontend=algorithm) == "reserve"
        lines = eventually(lambda: (found := proxy.access_lines())[len(ALGORITHMS) - 1 :] and found)
        assert {line["attempts"] for line in lines} == {2}, "the others were tried first"


def test_probes_bring_a_backup_in_and_the_others_back(edge, origin):
    reserve, quick = origin(named("reserve")), {"type": "tcp", "interval": "100ms", "unhealthy_threshold": 1}
    with serving(named("usual")) as usual:
        proxy = edge(config=config([(reserve, True), (usual, False)], "round_robin", **quick))
        eventually(lambda: proxy.ready()["candidates"] == 2, what="both are up")
        eventually(lambda: who(proxy) == "usual")
        assert {who(proxy) for _ in range(10)} == {"usual"}
    eventually(lambda: proxy.ready()["candidates"] == 1, what="it is down")
    assert {who(proxy) for _ in range(10)} == {"reserve"}
    again = config([(reserve, False), (usual, True)], "round_robin", **quick)
    assert proxy.reload(again)["level"] == "INFO"
    assert {who(proxy) for _ in range(10)} == {"reserve"}, "they have changed places"


def test_the_api_and_explain_name_a_backup(edge, tmp_path):
    proxy = edge(config=config([(1, False), (2, True)], "geo"), **admin_variables(tmp_path))
    listed = admin_of(proxy, tmp_path).get("/api/pools/geo/backends")["items"]
    assert [(one["id"], one["is_backup"]) for one in listed] == [("127.0.0.1:1", False), ("127.0.0.1:2", True)]
    judged = json.loads(command("explain", "8.8.8.8", "--config", proxy.config_path, "--json").stdout)["items"]
    assert judged[1]["id"] == "127.0.0.1:2"
    assert judged[1]["why"] == "out: backup: serves while no other is a candidate"


def test_a_pool_of_backups_alone_is_a_fault(tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(json.dumps(config([(80, True)], "geo")))
    done = command("check", "--config", path)
    assert done.returncode == 2
    assert "needs a server that is no backup" in done.stderr
