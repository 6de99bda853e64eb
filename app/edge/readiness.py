"""Readiness: whether an edge wants clients, and why not. The response of /ready and of the admin API's status."""

from __future__ import annotations

import time

from actors.messages import CountCandidates
from actors.runtime import ask
from app.edge.dark_frontends import dark_frontends
from app.edge.parts import EdgeParts
from app.outbound.json_log import rfc3339
from app.outbound.maxmind_geo import MaxmindGeo
from app.outbound.replica_file import ReplicaStatus
from app.proxy_service import ASK_TIMEOUT_SECONDS


def readiness(parts: EdgeParts, frontend: str | None = None) -> tuple[bool, dict[str, object]]:
    """Return whether the edge, or one frontend of it, wants clients, and the details.

    The edge wants them while it listens, does not drain, has a backend to select, and no frontend is dark that is
    `required`. A frontend is dark while its pool has no candidate backend. Raises what asking the registry raises.
    """
    pools = ask(parts.actors.registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS)
    candidates = sum(pool.candidates for pool in pools.values())
    listeners = parts.data_plane.addresses
    routing = parts.watcher.status
    reasons = []
    if parts.draining.is_set():
        reasons.append("draining")
    if not listeners:
        reasons.append("not listening")
    if parts.gateway.restore_error:
        reasons.append("endpoints are not restored")
    frontends = {one.name: one for one in parts.config().frontends}
    dark = dark_frontends(parts.config(), pools)
    if frontend is not None and frontend not in frontends:
        reasons.append(f"no such frontend: {frontend}")
    elif (frontend is not None and frontend in dark) or (frontend is None and candidates == 0 and any(pools)):
        reasons.append("no candidate backend")
    elif frontend is None:
        reasons += [f"no candidate backend: frontend {name}" for name in dark if frontends[name].required]
    details: dict[str, object] = {
        "ready": not reasons,
        "reasons": reasons,
        "listeners": [address for addresses in listeners.values() for address in addresses],
        "frontends": listeners,
        "dark_frontends": dark,
        "backends": sum(pool.members for pool in pools.values()),
        "candidates": candidates,
        "pools": {
            name: {"backends": pool.members, "candidates": pool.candidates, "fails_open": pool.fails_open}
            for name, pool in pools.items()
        },
        "configuration_is_current": parts.file is None or parts.file.is_current,
        "connections": parts.data_plane.open_count,
        "routing": {
            "loaded_at": rfc3339(routing.loaded_at) if routing.loaded_at else None,
            "stale": routing.error,
            "rows_refused": routing.rows_refused,
        },
        "replica": _replica(parts.replica.current) if parts.replica is not None else None,
        "gateway": {"restore_error": parts.gateway.restore_error, "damaged_rows": parts.gateway.damaged_rows},
        "geography": _geography(parts.geo) if parts.geo is not None else None,
    }
    return not reasons, details


def _replica(reported: ReplicaStatus | None) -> dict[str, object]:
    status = reported or ReplicaStatus(error="the replicator has not reported yet")
    age = status.age_seconds()
    return {
        "age_seconds": round(age, 3) if age is not None else None,
        "error": status.error,
        "revision": status.revision,
        "endpoint": status.endpoint,
        "records": status.records,
        "is_held": status.is_held,
        "suspects": {"count": status.suspect_count, "ids": status.suspects},
        "bad_records": {"count": status.bad_count, "ids": status.bad},
    }


def _geography(geo: MaxmindGeo) -> dict[str, object]:
    return {
        "type": geo.database_type,
        "built_at": rfc3339(geo.built_at),
        "age_days": int((time.time() - geo.built_at) // 86_400),
    }
