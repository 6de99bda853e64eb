"""The table of metrics: the promised names are there, under rules that promtool would insist on."""

from __future__ import annotations

import re

from app.domain import metric_names
from app.domain.metric_names import ALL, BY_BACKEND, COUNTER, GAUGE, HISTOGRAM

PROMISED = """
    edgeproxy_connections_total edgeproxy_connections_active edgeproxy_bytes_sent_total edgeproxy_bytes_received_total
    edgeproxy_backend_connections_total edgeproxy_backend_connections_active edgeproxy_backend_errors_total
    edgeproxy_backend_rtt_seconds edgeproxy_bindings edgeproxy_leases_total edgeproxy_routing_reloads_total
    edgeproxy_routing_rows_refused edgeproxy_actor_restarts_total edgeproxy_actor_mailbox_depth
    edgeproxy_loop_pause_max_seconds
    edgeproxy_requests_total edgeproxy_request_duration_seconds edgeproxy_backend_bytes_sent_total
    edgeproxy_backend_bytes_received_total edgeproxy_backend_health_changes_total edgeproxy_probes_total
    edgeproxy_config_reloads_total edgeproxy_config_last_reload_success
""".split()


def test_every_promised_metric_is_exposed() -> None:
    assert set(PROMISED) <= {metric.exposed_name for metric in ALL}


def test_every_name_of_the_module_is_in_the_table_once() -> None:
    constants = {text for name, text in vars(metric_names).items() if name.isupper() and isinstance(text, str)}
    assert sorted(constants - {COUNTER, GAUGE, HISTOGRAM}) == sorted(metric.name for metric in ALL)


def test_names_and_labels_are_well_formed_and_only_counters_are_totals() -> None:
    for metric in ALL:
        assert re.fullmatch(r"edgeproxy(_[a-z]+)+", metric.name), metric
        assert metric.kind in (COUNTER, GAUGE, HISTOGRAM)
        assert metric.exposed_name.endswith("_total") == (metric.kind == COUNTER)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert all(re.fullmatch("[a-z]+", label) for label in metric.labels)
        assert "le" not in metric.labels


def test_each_metric_says_what_it_is_in_a_sentence() -> None:
    assert all(re.fullmatch(r"[A-Z1].+\.", metric.help) for metric in ALL)
    assert len({metric.help for metric in ALL}) == len(ALL)


def labels_of(name: str) -> tuple[str, ...]:
    return next(metric.labels for metric in ALL if metric.name == name)


def test_a_backend_is_always_named_with_its_pool_first() -> None:
    assert {metric.labels[:2] for metric in ALL if "backend" in metric.labels} == {("pool", "backend")}


def test_what_goes_with_its_backend_is_labelled_by_it_first() -> None:
    kept_by_the_actor = {m.name for m in ALL if "backend" in m.labels and m.kind != GAUGE}
    assert set(BY_BACKEND) == kept_by_the_actor


def test_requests_are_labelled_by_frontend_backend_and_status_and_counted_by_method() -> None:
    by_method = labels_of(metric_names.REQUESTS)
    assert by_method[-1] == "method"
    assert labels_of(metric_names.REQUEST_SECONDS) == by_method[:-1]
    assert {"frontend", "backend", "code"} <= set(by_method)
