"""Rows made by hand: NULLs have defaults, bad rows are reported and counted, good rows serve."""

from __future__ import annotations

import sqlite3

from tests.harness import SEED_DDL, eventually, row, write_backends
from tests.traffic import named, who

REFUSED = "edgeproxy_routing_rows_refused"


def refusals(proxy):
    """Every logged refusal: (backend, columns)."""
    return [(line["backend"], line["columns"]) for line in proxy.log() if line["event"].startswith("row refused: ")]


def insert(path, **columns):
    """Insert exactly these columns, all others NULL; `id` may be an SQL expression given as bytes."""
    with sqlite3.connect(path) as database:
        marks = ", ".join("?" * len(columns))
        database.execute(f"INSERT INTO backends ({', '.join(columns)}) VALUES ({marks})", list(columns.values()))
    database.close()


def test_a_table_of_the_seeds_ddl_with_nulls_everywhere_but_the_address_serves(edge, origin, routing_db):
    insert(routing_db, id="bare", wg_ip="127.0.0.1", port=origin(named("bare")))
    proxy = edge(GEOIP_PATH="off")
    assert who(proxy) == "bare"
    assert (proxy.ready()["candidates"], proxy.metrics()[REFUSED]) == (1, 0)


def test_further_columns_and_their_values_are_read_past(edge, origin, routing_db):
    with sqlite3.connect(routing_db) as database:
        database.execute("DROP TABLE backends")
        database.execute(SEED_DDL[:-1] + ', notes TEXT, "odd name""!" BLOB DEFAULT x\'00ff\')')
    database.close()
    insert(routing_db, id="a", wg_ip="127.0.0.1", port=origin(named("a")), notes="rack 7")
    proxy = edge(GEOIP_PATH="off")
    assert who(proxy) == "a"
    assert proxy.metrics()[REFUSED] == 0
    with sqlite3.connect(routing_db) as database:
        database.execute("ALTER TABLE backends ADD COLUMN later TEXT DEFAULT 'x'")
        database.execute("UPDATE backends SET port = ?", [origin(named("moved"))])
    database.close()
    eventually(lambda: who(proxy) == "moved", what="an altered table is followed")


def test_a_table_without_the_optional_columns_serves(edge, origin, routing_db):
    with sqlite3.connect(routing_db) as database:
        database.execute("DROP TABLE backends")
        database.execute("CREATE TABLE backends (id TEXT, wg_ip TEXT, port INTEGER)")
    database.close()
    insert(routing_db, id="a", wg_ip="127.0.0.1", port=origin(named("a")))
    assert who(edge(GEOIP_PATH="off")) == "a"


BAD_ROWS = {
    "empty id": (row("", 80), "id"),
    "no port": (row("no-port", 80) | {"port": None}, "port"),
    "port 0": (row("port-0", 0), "port"),
    "port 65536": (row("port-65536", 65536), "port"),
    "negative port": (row("port-neg", -1), "port"),
    "text for a port": (row("port-text", 80) | {"port": "http"}, "port"),
    "half a port": (row("port-half", 80) | {"port": 80.5}, "port"),
    "no address": (row("no-ip", 80, wg_ip=None), "wg_ip"),
    "unparsable address": (row("bad-ip", 80, wg_ip="10.0.0.256"), "wg_ip"),
    "address with a port": (row("ip-port", 80, wg_ip="10.0.0.1:80"), "wg_ip"),
    "negative weight": (row("weight-neg", 80, weight=-1), "weight"),
    "text for a weight": (row("weight-text", 80, weight="much"), "weight"),
    "negative soft limit": (row("soft-neg", 80, soft_limit=-1), "soft_limit"),
    "negative hard limit": (row("hard-neg", 80, hard_limit=-5), "hard_limit"),
    "huge hard limit": (row("hard-huge", 80, hard_limit=2**62), "hard_limit"),
    "text for healthy": (row("healthy-text", 80, healthy="yes"), "healthy"),
    "two for deleted": (row("deleted-2", 80, deleted=2), "deleted"),
    "bytes for a region": (row("region-blob", 80, region=b"\xff\x00"), "region"),
    "a newline in an id": (row("two\nlines", 80), "id"),
}


def test_each_bad_row_is_named_with_id_and_column_counted_and_the_good_ones_serve(edge, origin, routing_db):
    good = row("good", origin(named("good")))
    proxy = edge([good, *(bad for bad, _ in BAD_ROWS.values())], DB_RELOAD_SECS=0.2, GEOIP_PATH="off")
    assert who(proxy) == "good"
    assert proxy.metrics()[REFUSED] == proxy.ready()["routing"]["rows_refused"] == len(BAD_ROWS)
    assert sorted(refusals(proxy)) == sorted((bad["id"], [column]) for bad, column in BAD_ROWS.values())
    loads = 'edgeproxy_routing_reloads_total{result="ok"}'
    eventually(lambda: proxy.metrics()[loads] >= 3, what="some full reloads")
    write_backends(routing_db, [dict(good, weight=3), row("port-0", 0), row("port-text", 80)])
    eventually(lambda: proxy.metrics()[REFUSED] == 1, what="the change is loaded")
    assert len(refusals(proxy)) == len(BAD_ROWS), "named once, not once a load"
    write_backends(routing_db, [dict(good, weight=3), row("port-0", 0, weight=-1), row("port-text", 80)])
    again = eventually(lambda: refusals(proxy)[len(BAD_ROWS) :], what="bad in another way: named again")
    assert again == [("port-0", ["port", "weight"])]
    assert who(proxy) == "good"


def test_invalid_utf8_refuses_its_row_and_not_the_table(edge, origin, routing_db):
    write_backends(routing_db, [row("good", origin(named("good"))), row("bad", 80)])
    with sqlite3.connect(routing_db) as database:
        database.execute(
            "UPDATE backends SET region = CAST(x'c3' AS TEXT), id = CAST(x'62ff' AS TEXT) WHERE id = 'bad'"
        )
    database.close()
    proxy = edge(GEOIP_PATH="off")
    assert who(proxy) == "good"
    assert proxy.ready()["routing"] | {"loaded_at": ""} == {"loaded_at": "", "stale": None, "rows_refused": 1}
    assert eventually(lambda: refusals(proxy))[0][1] == ["id", "region"]


def test_rows_without_an_id_are_refused_one_by_one(edge, origin, routing_db):
    insert(routing_db, id=None, wg_ip="127.0.0.1", port=80)
    insert(routing_db, id=None, wg_ip="127.0.0.1", port=81)
    insert(routing_db, id="good", wg_ip="127.0.0.1", port=origin(named("good")))
    proxy = edge(GEOIP_PATH="off")
    assert who(proxy) == "good"
    assert proxy.metrics()[REFUSED] == 2


def test_a_hard_limit_below_the_soft_one_serves_with_a_warning(edge, origin):
    proxy = edge([row("a", origin(named("a")), soft_limit=10, hard_limit=2)], GEOIP_PATH="off")
    assert who(proxy) == "a"
    line = proxy.event("backend a: hard_limit 2 is below soft_limit 10")
    assert line["level"] == "WARNING"


def test_a_database_of_nothing_but_bad_rows_is_a_database_without_backends(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    assert who(proxy) == "a"
    write_backends(routing_db, [row("a", 0)])
    eventually(lambda: proxy.get("/ready")[0] == 503, what="the change is applied")
    assert (proxy.ready()["backends"], proxy.ready()["routing"]["rows_refused"]) == (0, 1)
    assert who(proxy) == ""


def test_spaces_around_text_do_not_count_so_ids_that_differ_only_in_them_are_the_same(edge, origin):
    port = origin(named("a"))
    spacious = row(" a ", port, region=" SA ", country=" br ", wg_ip=" 127.0.0.1 ")
    proxy = edge([spacious, row("a", port, weight=0), row("b", port, weight=0)], GEOIP_PATH="off")
    assert who(proxy) == "a"
    assert eventually(proxy.access_lines)[0]["backend"] == "a"
    assert (proxy.ready()["backends"], proxy.metrics()[REFUSED]) == (2, 1)
    assert refusals(proxy) == [("a", ["id"])]
