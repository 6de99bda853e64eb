"""The tally of requests: by label values, in an unchanging view, from 0 after a report."""

from __future__ import annotations

from app.inbound.http.request_tally import RequestTally

GET = ("pool", "a", "web", "200", "GET")
POST = ("pool", "a", "web", "200", "POST")


def test_nothing_served_is_nothing_to_tell() -> None:
    assert RequestTally().view() == {}


def test_requests_are_counted_by_every_label() -> None:
    tally = RequestTally()
    for labels, seconds in ((GET, 0.25), (GET, 0.5), (POST, 4.0)):
        tally.served(labels, seconds)
    assert {labels: (view.count, view.total) for labels, view in tally.view().items()} == {
        GET: (2, 0.75),
        POST: (1, 4.0),
    }


def test_a_view_does_not_change_while_more_is_served() -> None:
    tally = RequestTally()
    tally.served(GET, 0.1)
    view = tally.view()
    tally.served(GET, 0.1)
    tally.served(POST, 0.1)
    assert {labels: one.count for labels, one in view.items()} == {GET: 1}


def test_after_a_report_counting_starts_over() -> None:
    tally = RequestTally()
    tally.served(GET, 0.1)
    tally.served(POST, 0.1)
    tally.clear()
    assert tally.view() == {}
    tally.served(GET, 0.2)
    assert {labels: (one.count, one.total) for labels, one in tally.view().items()} == {GET: (1, 0.2)}
