"""The command `explain`: which backend a client would get, computed from the databases."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import time

import click
from rich.table import Table

from app.commands.configuration import configuration_options, given, load_or_exit
from app.commands.geo_frontend import geo_frontend, stored_backends
from app.commands.output import console, fail, json_option
from app.domain.client import unmapped
from app.domain.explain import Verdict
from app.domain.explain import explain as judge
from app.edge.plans import backends_of
from app.outbound.maxmind_geo import GeoDatabaseError, open_geo
from app.outbound.name_watcher import resolve_once
from app.ports import RepositoryError


@click.command()
@click.argument("address")
@configuration_options
@click.option("--frontend", "frontend_name", metavar="NAME", help="A geo frontend of the file [default: the first].")
@json_option
def explain(address: str, frontend_name: str | None, as_json: bool, **options: str | None) -> None:
    """Show which backend a client at ADDRESS would get, and why. Reads the databases, not a running edge."""
    config = load_or_exit(given(options))
    frontend, pool = geo_frontend(config, frontend_name)
    try:
        address = unmapped(str(ipaddress.ip_address(address)))
        geo = open_geo(config.geoip_path)
        found = stored_backends(config, pool)
        backends = resolve_once(backends_of(pool, found.backends))
    except ValueError:
        fail("edgeproxy", f"{address!r} is not an IP address")
    except (GeoDatabaseError, RepositoryError) as error:
        fail("edgeproxy", str(error))
    location = geo.resolve(address) if geo is not None else None
    verdicts = judge(backends, location, config.region or None)
    built = time.strftime("%Y-%m-%d", time.gmtime(geo.built_at)) if geo is not None else None
    age_days = int((time.time() - geo.built_at) // 86_400) if geo is not None else None
    head = {
        "client": address,
        "country": location.country if location else None,
        "region": location.region if location else None,
        "pop_region": config.region or None,
        "geography_built": built,
        "geography_age_days": age_days,
        "frontend": frontend,
        "pool": pool.name,
    }
    if as_json:
        refused, items = [str(bad) for bad in found.refused], [_flat(v) for v in verdicts]
        click.echo(json.dumps({**head, "items": items, "total": len(items), "refused_rows": refused}, indent=2))
        return
    click.echo("  ".join(f"{name}: {value if value is not None else '-'}" for name, value in head.items()))
    console().print(_verdict_table(verdicts))
    for bad in found.refused:
        click.echo(f"refused row: {bad}")


def _flat(verdict: Verdict) -> dict[str, object]:
    fields = dataclasses.asdict(verdict)
    return {**fields.pop("backend"), **fields}


def _verdict_table(verdicts: list[Verdict]) -> Table:
    table = Table("backend", "app", "region", "country", "address", "weight", "tier", "score", "why", box=None)
    for v in verdicts:
        b = v.backend
        host = f"[{b.host}]" if ":" in b.host else b.host or b.host_name
        table.add_row(
            b.id, b.app, b.region, b.country, f"{host}:{b.port}", str(b.weight), str(v.tier), f"{v.score:g}", v.why
        )
    return table
