"""`python -m app mesh …`: output, files, errors and exit codes."""

from __future__ import annotations

import base64
import json
import stat

import pytest
import yaml

from tests.commands import backends, command, edgeproxy, save
from tests.harness import row

NETWORK = {
    "network": "edge.example.net",
    "pops": [
        {"name": "gru", "region": "sa", "country": "BR", "endpoint": "192.0.2.1"},
        {"name": "fra", "region": "eu", "country": "DE", "endpoint": "192.0.2.2"},
    ],
    "apps": [{"name": "web", "port": 8080, "instances": {"gru": 1, "fra": 2}}],
}


@pytest.fixture
def mesh(tmp_path):
    return Mesh(tmp_path)


class Mesh:
    """A mesh file and a directory of plans, with the commands on them."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "mesh.yaml"
        self.plans = folder / "mesh"
        self.write()

    def write(self, **keys):
        self.file.write_text(yaml.safe_dump({**NETWORK, **keys}))

    def run(self, name, *arguments):
        return command("mesh", name, self.file, *arguments, "--dir", self.plans)

    def plan(self, *options):
        done = self.run("plan", *options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def kept(self):
        """Return the content of every file in the directory."""
        return {str(path.relative_to(self.plans)): path.read_bytes() for path in self.plans.rglob("*.*")}


def test_a_plan_is_printed_and_kept_and_the_same_again_changes_nothing(mesh):
    first = mesh.plan()
    assert "fd98:63dd:9ac2:2c0:281e:17f7:b283:4b77" in first
    assert "+ pop gru ipv6: fd98:63dd:9ac2:2c0:281e::/80" in first
    kept = mesh.kept()
    assert sorted(kept) == ["fra/edge0.conf", "fra/edge0.key", "gru/edge0.conf", "gru/edge0.key", "plan.json"]
    again = mesh.plan()
    assert "no changes" in again
    assert "written" not in again
    assert mesh.kept() == kept


def test_private_keys_are_in_their_files_and_nowhere_else(mesh):
    printed = mesh.plan() + mesh.plan("--json")
    keys = {path: path.read_bytes().strip() for path in mesh.plans.glob("*/edge0.key")}
    assert len(set(keys.values())) == 2
    for path, key in keys.items():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        others = b"".join(content for name, content in mesh.kept().items() if not name.endswith(".key"))
        assert key not in others + printed.encode()
        assert base64.b64decode(key).hex() not in printed


def test_a_dry_run_shows_changes_and_writes_nothing(mesh):
    assert "written" not in mesh.plan("--dry-run")
    assert not mesh.plans.exists()
    mesh.plan()
    kept = mesh.kept()
    mesh.write(mtu=1380, apps=[])
    said = mesh.plan("--dry-run")
    assert "~ network mtu: 1420 -> 1380" in said
    assert "- pop gru instance gru-web-1 ipv6: fd98:63dd:9ac2:2c0:281e:17f7:b283:4b77" in said
    assert mesh.kept() == kept


def test_only_configurations_that_changed_are_written(mesh):
    mesh.plan()
    mesh.write(apps=[{"name": "web", "port": 8080, "instances": {"gru": 2, "fra": 2}}])
    described = json.loads(mesh.plan("--json"))
    assert [change["what"] for change in described["changes"]] == ["pop gru instance gru-web-2 ipv6"]
    assert described["written"] == ["gru"], "an instance is its own POP's affair"


def test_addresses_are_distinguished(mesh):
    mesh.plan()
    known = ["fd98:63dd:9ac2:2c0:281e::1", "fd98:63dd:9ac2:2c0:281e:17f7:b283:4b77"]
    done = mesh.run("whois", *known)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{known[0]}  region sa, pop gru, the POP itself",
        f"{known[1]}  region sa, pop gru, instance gru-web-1",
    ]
    done = mesh.run("whois", "fd98:63dd:9ac2:2c0:281e::2", known[0], "10.0.0.1")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "fd98:63dd:9ac2:2c0:281e::2  not in the plan; its digits mean region sa, pop gru, instance a",
        f"{known[0]}  region sa, pop gru, the POP itself",
        "10.0.0.1  not in fd98:63dd:9ac2::/48",
    ]
    done = mesh.run("whois", "somewhere")
    assert (done.returncode, done.stderr) == (2, "mesh: 'somewhere' is not an IP address\n")


def test_rows_of_the_routing_database_get_their_new_addresses_and_keep_the_rest(mesh, tmp_path):
    database = tmp_path / "routing.db"
    rows = [
        row("shop", 80, wg_ip="10.50.1.77", weight=7, hard_limit=9, app="shop"),
        row("gru-web-1", 81, wg_ip="10.50.1.78", weight=3),
    ]
    save(database, rows)
    done = mesh.run("backends", "--db", database)
    assert (done.returncode, done.stderr) == (0, "")
    assert backends(database, "load", "-", stdin=done.stdout).returncode == 0
    listed = {one["id"]: one for one in json.loads(backends(database, "list", "--json").stdout)}
    assert set(listed) == {"shop", "gru-web-1", "fra-web-1", "fra-web-2"}
    assert (listed["shop"]["weight"], listed["shop"]["hard_limit"], listed["shop"]["port"]) == (7, 9, 80)
    assert (listed["gru-web-1"]["weight"], listed["gru-web-1"]["port"]) == (3, 81), "the row was there"
    assert listed["gru-web-1"]["wg_ip"] == "fd98:63dd:9ac2:2c0:281e:17f7:b283:4b77"
    assert all(one["wg_ip"].startswith("fd98:63dd:9ac2:") for one in listed.values())
    done = mesh.run("backends", "--db", database, "--family", "ipv4")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "mesh: the plan has no ipv4 addresses\n")


def test_everything_at_fault_is_named_and_nothing_written(mesh, tmp_path):
    mesh.write(topologie="mesh", mtu=1)
    done = mesh.run("plan")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ", 1)[0] for line in done.stderr.splitlines()] == ["mesh"] * 2
    mesh.write(topology="hub")
    done = mesh.run("plan")
    assert (done.returncode, done.stderr) == (2, "mesh: topology hub: no pop has hub: on\n")
    mesh.write()
    database = tmp_path / "routing.db"
    save(database, [row("lost", 80, wg_ip="10.0.0.1", region="ap")])
    done = mesh.run("plan", "--db", database)
    assert done.returncode == 2
    assert done.stderr == "mesh: backend lost: no pop's network contains 10.0.0.1, and region ap has 0 pops\n"
    database.write_text("no database " * 100)
    assert mesh.run("plan", "--db", database).returncode == 2
    assert not mesh.plans.exists()


@pytest.mark.parametrize(
    ("content", "fault"), [(b"", "Invalid JSON"), (b"{}", "network: Field required"), (b"\xff", "Invalid JSON")]
)
def test_a_last_plan_that_cannot_be_read_is_not_overwritten(mesh, content, fault):
    """Otherwise its IPv4 addresses would be assigned again."""
    mesh.plan()
    (mesh.plans / "plan.json").write_bytes(content)
    done = mesh.run("plan")
    assert done.returncode == 2
    assert f"plan.json: is not a plan: {fault}" in done.stderr
    assert (mesh.plans / "plan.json").read_bytes() == content


def test_keys_that_others_may_read_are_refused(mesh):
    mesh.plan()
    (mesh.plans / "gru" / "edge0.key").chmod(0o644)
    done = mesh.run("plan")
    assert done.returncode == 2
    assert "others can read it (mode 644)" in done.stderr


def test_a_key_is_made_once_and_its_public_one_printed(tmp_path):
    first, second = (edgeproxy("mesh", "key", tmp_path / "edge0.key") for _ in range(2))
    assert first.returncode == 0
    assert len(base64.b64decode(first.stdout)) == 32
    assert second.stdout == first.stdout
    done = command("mesh", "key", tmp_path / "nowhere" / "edge0.key")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such file or directory" in done.stderr


def test_a_missing_file_is_an_error(mesh):
    mesh.file.unlink()
    done = mesh.run("plan")
    assert (done.returncode, done.stderr) == (2, f"mesh: {mesh.file}: No such file or directory\n")
    done = command("mesh", "bgp", mesh.file, "gru")
    assert done.returncode == 2


def test_an_impossible_announcement_is_an_error(mesh):
    done = command("mesh", "bgp", mesh.file, "gro")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mesh: 'gro': there is no such POP, did you mean gru?\n"
    done = command("mesh", "bgp", mesh.file, "gru", "--ready", "http://127.0.0.1:1/ready")
    assert done.stderr == "mesh: anycast: is required to announce\n"
