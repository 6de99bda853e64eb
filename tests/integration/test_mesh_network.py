"""The planned network: WireGuard between network namespaces, and an edge with backends behind it."""

from __future__ import annotations

import stat

import pytest

from tests.commands import command
from tests.harness import eventually
from tests.integration.mesh_machines import addresses, handshakes, plan, require_wireguard, tunnels_up
from tests.machines import PYTHON, MachineEdge, backend, get
from tests.namespaces import require_namespaces, wire

TWO = {
    "network": "two.example.net",
    "pops": [
        {"name": "gru", "region": "sa", "country": "BR", "endpoint": "192.0.2.1"},
        {"name": "fra", "region": "eu", "country": "DE", "endpoint": "[2001:db8::2]:51820"},
    ],
    "apps": [{"name": "web", "port": 8080, "instances": {"fra": 1}}],
}
THREE = {
    "network": "three.example.net",
    "families": "dual",
    "ipv4": "10.50.0.0/16",
    "topology": "hub",
    "pops": [
        {"name": "gru", "region": "sa", "country": "BR"},
        {"name": "fra", "region": "eu", "country": "DE", "endpoint": "192.0.2.1", "hub": True},
        {"name": "nrt", "region": "ap", "country": "JP"},
    ],
    "apps": [{"name": "web", "port": 8080, "instances": {"nrt": 1}}],
}
"""fra is the hub; the others have no endpoint, as behind NAT."""


@pytest.fixture(scope="module", autouse=True)
def _tools():
    require_namespaces()
    require_wireguard()


def rows(folder, *options):
    """Return the rows that `mesh backends` prints."""
    done = command("mesh", "backends", folder / "mesh.yaml", "--dir", folder / "mesh", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_two_pops_shake_hands_and_a_client_at_one_is_served_by_the_other(tmp_path):
    """gru makes its own key, which never leaves it; fra's is made with the plan. Only the owners can read them."""
    with wire("gru", "fra") as network:
        gru, fra = network["gru"], network["fra"]
        public = gru.do(PYTHON, "-m", "app", "mesh", "key", "/etc/wireguard/edge0.key").strip()
        assert gru.do("stat", "-c", "%a", "/etc/wireguard/edge0.key").strip() == "600"
        assert gru.do("sh", "-c", "wg pubkey < /etc/wireguard/edge0.key").strip() == public, "as WireGuard sees it"
        pops = [{**TWO["pops"][0], "public_key": public}, TWO["pops"][1]]
        planned = plan(tmp_path, {**TWO, "pops": pops})
        assert sorted(path.name for path in (tmp_path / "mesh" / "gru").iterdir()) == ["edge0.conf"]
        assert stat.S_IMODE((tmp_path / "mesh" / "fra" / "edge0.key").stat().st_mode) == 0o600
        tunnels_up(network, tmp_path)
        eventually(lambda: (handshakes(gru), handshakes(fra)) == (1, 1), 3, "they met at once, not after a lost word")
        where = addresses(planned)
        backend(fra, tmp_path, "fra-web-1", where["fra-web-1"])
        edge = MachineEdge(gru, tmp_path)
        edge.load(rows(tmp_path))
        edge.start()
        response = eventually(edge.response, what="an answer through the tunnel")
        name, _, source = response.strip().partition(" was asked by ")
        assert name == "fra-web-1"
        assert source.startswith(where["gru"].removesuffix("::1")), "by way of the private network"
        keepalive = gru.do("wg", "show", "edge0", "persistent-keepalive").split()[1]
        mtu = gru.do("ip", "-o", "link", "show", "edge0")
        assert (keepalive, "mtu 1420" in mtu) == ("25", True)
        nobody = where["fra-web-1"][:-1] + ("0" if where["fra-web-1"][-1] != "0" else "1")
        assert get(gru, nobody, 8080) == ""
        fra.do("wg-quick", "down", "edge0")
        assert "unreachable" not in fra.do("ip", "-6", "route"), "nothing is left behind"


def test_three_pops_meet_at_a_hub_by_ipv6_and_by_ipv4(tmp_path):
    """gru and nrt are not reachable from outside and know only fra, which routes between them."""
    with wire("fra", "gru", "nrt") as network:
        fra, gru, nrt = network.machines.values()
        planned = plan(tmp_path, THREE)
        tunnels_up(network, tmp_path)
        where = addresses(planned)
        (ipv4,) = [instance["ipv4"] for pop in planned["plan"]["pops"] for instance in pop["instances"]]
        backend(nrt, tmp_path, "nrt-web-1", where["nrt-web-1"])
        backend(nrt, tmp_path, "nrt-web-1", ipv4)
        edge = MachineEdge(gru, tmp_path)
        edge.load(rows(tmp_path))
        edge.start()
        for family, source in (("ipv6", where["gru"].removesuffix("1")), ("ipv4", "10.50.")):
            edge.load(rows(tmp_path, "--family", family))
            wanted = f"nrt-web-1 was asked by {source}"
            eventually(lambda wanted=wanted: wanted in edge.response(), what=f"served by {family}")
        assert [handshakes(machine) for machine in (gru, fra, nrt)] == [1, 2, 1]
        assert fra.do("wg", "show", "edge0", "transfer").count("\n") == 2


def test_backends_move_from_ipv4_to_ipv6_without_a_connection_lost(tmp_path):
    """wg_ip was IPv4: plan both families, load the rows with the new addresses, plan IPv6 alone."""
    pops = [{**pop, "ipv4": f"10.50.{number}.0/24"} for number, pop in enumerate(TWO["pops"], start=1)]
    new = {"network": TWO["network"], "pops": pops}
    old = {**new, "families": "ipv4", "ipv4": "10.50.0.0/16"}
    with wire("gru", "fra") as network:
        gru, fra = network["gru"], network["fra"]
        edge = MachineEdge(gru, tmp_path)
        edge.load("id,region,country,wg_ip,port,weight\nshop,eu,DE,10.50.2.77,8080,7\n")
        plan(tmp_path, old, "--db", edge.database)
        tunnels_up(network, tmp_path)
        backend(fra, tmp_path, "shop", "10.50.2.77")
        edge.start()
        eventually(lambda: "asked by 10.50.1.1" in edge.response(), what="served by IPv4")

        both = plan(tmp_path, {**old, "families": "dual"}, "--db", edge.database)
        assert [change["what"] for change in both["changes"] if change["before"]] == [], "nothing is taken away"
        with edge.connection() as ask:
            assert ask().startswith("shop")
            tunnels_up(network, tmp_path)
            shop = addresses(both)["shop"]
            backend(fra, tmp_path, "shop", shop)
            moved = rows(tmp_path, "--db", edge.database)
            assert f"shop,,eu,DE,{shop},8080,1,7," in moved
            edge.load(moved)
            eventually(lambda: "asked by fd" in edge.response(), what="served by IPv6")
            assert ask().startswith("shop"), "the tunnel was down for a moment, the connection lives"

        last = plan(tmp_path, new, "--db", edge.database)
        assert addresses(last)["shop"] == shop
        tunnels_up(network, tmp_path)
        assert "asked by fd" in edge.response()
        assert "10.50." not in gru.do("ip", "address", "show", "edge0")
