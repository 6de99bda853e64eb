"""In-process figures: the cost of an ask, a selection and a look-up, and the longest pause of the event loop."""

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from gevent import monkey

monkey.patch_all()

from actors.bindings import BindingsActor
from actors.metrics import MetricsActor
from actors.registry import RegistryActor
from actors.runtime import Address, Ping, ask
from app.domain.affinity import AffinityTable
from app.domain.client import Client
from app.domain.health import HealthRules
from app.domain.measures import Measures
from app.domain.model import Backend, GeoInfo
from app.domain.outcome import State
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.pool import Pool
from app.domain.selection import GeoSelector, Selector
from app.domain.single_flight import SingleFlight
from app.outbound.maxmind_geo import MaxmindGeo
from app.proxy_service import Actors, ProxyService, Route
from scripts.benchmark import micro_gateway
from scripts.benchmark.idle import close_all, open_idle
from scripts.benchmark.machine import ROOT
from scripts.benchmark.peers import seed
from scripts.benchmark.processes import free_port, is_listening

COUNTRIES = (("sa", "BR"), ("us", "US"), ("eu", "FR"), ("ap", "JP"))
BINDINGS = 1_000_000
IDLE_CONNECTIONS = 5_000
CHURNED_CONNECTIONS = 3_000
REPEATS = 5
PLAN = PoolPlan("bench", HealthRules(), (SelectorPlan("edge", "geo"),))


def figures() -> dict[str, float]:
    """Return every figure, by label with unit."""
    chance = random.Random(1)
    result = {
        f"Selection with reserve and release, {count:,} backends, µs ↓": selection_us(count, chance)
        for count in (10, 1_000, 10_000)
    }
    actors = start_actors(chance)
    result["Ask round trip, µs ↓"] = best_us(lambda: ask(actors.registry, Ping(), timeout_s=5), 20_000)
    geo = MaxmindGeo()
    result["Country look-up, µs ↓"] = best_us(lambda: geo.resolve("200.160.2.3"), 50_000)
    result["Actor work for one connection, µs ↓"] = best_us(one_connection(actors, geo), 10_000)
    result |= micro_gateway.figures(best_us)
    label = f"Longest pause of the loop, {BINDINGS:,} bindings, {IDLE_CONNECTIONS:,} connections, ms ↓"
    result[label] = longest_pause_ms()
    return result


def best_us(work: Callable[[], object], count: int) -> float:
    """Return microseconds per call: the best of several repeats, which is the least disturbed one."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(count):
            work()
        best = min(best, time.perf_counter() - started)
    return best / count * 1e6


def make_backends(count: int) -> list[Backend]:
    """Return backends distributed over four countries."""
    places = [COUNTRIES[number % len(COUNTRIES)] for number in range(count)]
    return [Backend(f"b{n}", None, region, country, "127.0.0.1", 80) for n, (region, country) in enumerate(places)]


def selection_us(count: int, chance: random.Random) -> float:
    """Return the µs to select, reserve and release in a pool of `count` backends."""
    pool = Pool()
    pool.set_selectors(PLAN.selectors, selectors_by(chance))
    pool.replace(make_backends(count), 0.0)
    client = Client("90.0.0.1", "bench 90.0.0.1", GeoInfo("FR", "eu"))

    def once() -> None:
        pool.lease(1, "edge", client, None, (), 0.0)
        pool.release(1)

    return best_us(once, 20_000)


def selectors_by(chance: random.Random) -> Callable[[SelectorPlan], Selector]:
    """Return the factory of the selector for PLAN."""
    return lambda _plan: GeoSelector("sa", chance)


def start_actors(chance: random.Random) -> Actors:
    """Start the actors that a connection uses, with ten backends."""
    actors = Actors(Address("registry"), Address("bindings"), Address("metrics"), Address("health"))
    backends = {PLAN.name: make_backends(10)}
    actors.registry.publish(RegistryActor.start(selectors_by(chance), actors.metrics, [PLAN], backends, []))
    actors.bindings.publish(BindingsActor.start(AffinityTable(600, BINDINGS), {}, SingleFlight()))
    actors.metrics.publish(MetricsActor.start(Measures()))
    return actors


def one_connection(actors: Actors, geo: MaxmindGeo) -> Callable[[], None]:
    """Return a function that sends all messages of a bound client's connection and waits for the replies."""
    route = Route("edge", PLAN.name, has_affinity=True, has_client_limits=False)
    service = ProxyService(actors, geo, route, 128, itertools.count(1))

    def once() -> None:
        client = service.client("200.160.2.3")
        lease_id = service.next_lease_id()
        lease = service.lease(lease_id, client, ())
        service.connected(lease, client, 0.001)
        service.release(lease_id)
        service.closed(None, 0, State.NORMAL)

    return once


def longest_pause_ms() -> float:
    """Return the longest loop pause of an edge with a full binding table, many connections, and new ones."""
    edge_core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # the driver must not compete with the edge for its core
    with tempfile.TemporaryDirectory(prefix="edge-pause-") as name:
        folder = Path(name)
        write_bindings(folder / "bindings.jsonl")
        sink_port, port, metrics_port = free_port(), free_port(), free_port()
        sink = subprocess.Popen([sys.executable, str(ROOT / "scripts/benchmark/idle.py"), str(sink_port)])
        seed(folder / "routing.db", sink_port)
        edge = subprocess.Popen(
            ["taskset", "--cpu-list", str(edge_core), sys.executable, "-m", "app", "serve"],
            cwd=ROOT,
            env={name: text for name, text in os.environ.items() if not name.startswith("EDGEPROXY_")}
            | {
                "EDGEPROXY_ENV_FILE": "",
                "EDGEPROXY_LISTEN_ADDR": f"127.0.0.1:{port}",
                "EDGEPROXY_METRICS_LISTEN_ADDR": f"127.0.0.1:{metrics_port}",
                "EDGEPROXY_ADMIN_LISTEN_ADDR": "",
                "EDGEPROXY_DB_PATH": str(folder / "routing.db"),
                "EDGEPROXY_LOG_PATH": str(folder / "edge.jsonl"),
                "EDGEPROXY_BINDING_SNAPSHOT": str(folder / "bindings.jsonl"),
            },
        )
        try:
            wait_for_port(sink_port)
            wait_for_port(port)
            idle = open_idle(port, IDLE_CONNECTIONS)
            for _ in range(CHURNED_CONNECTIONS // 100):
                close_all(open_idle(port, 100))
            samples = read_metrics(metrics_port)
            close_all(idle)
            if samples["edgeproxy_bindings"] < BINDINGS:
                raise RuntimeError(f"only {samples['edgeproxy_bindings']:.0f} bindings were restored")
            return samples["edgeproxy_loop_pause_max_seconds"] * 1000
        finally:
            for child in (edge, sink):
                child.kill()
                child.wait()


def write_bindings(path: Path) -> None:
    """Write a snapshot of a full table."""
    now = time.time()
    with path.open("w") as file:
        file.write(json.dumps({"format": 1, "saved_at": now}) + "\n")
        for number in range(BINDINGS):
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            file.write(f'["default {address}","bench",{now + 590}]\n')


def wait_for_port(port: int) -> None:
    """Wait until the port is open."""
    deadline = time.monotonic() + 60
    while not is_listening(port):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on {port}")
        time.sleep(0.1)


def read_metrics(port: int) -> dict[str, float]:
    """Return the samples of an edge's /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}
