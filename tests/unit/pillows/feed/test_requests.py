"""The requests that a feed sends."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from checkpoints import Seq
from pillows.feed.options import SourceOptions
from pillows.feed.requests import (
    IDS_ROWS,
    INTERVAL,
    LARGE_DOCUMENT_BYTES,
    PAGE_BYTES,
    Page,
    filter_body,
    filter_query,
    page_query,
    plan_page,
    tail_query,
)


def source(**options: Any) -> SourceOptions:
    return SourceOptions(connection="c", database="db", **options)


@pytest.mark.parametrize(
    ("average_bytes", "expected"),
    [
        (500, Page(limit=10_000, interval=100, include_docs=True)),
        (8_000, Page(limit=1000, interval=100, include_docs=True)),
        (16_000, Page(limit=500, interval=100, include_docs=True)),
        (100_000, Page(limit=83, interval=None, include_docs=True)),
        (5_000_000, Page(limit=1, interval=None, include_docs=True)),
        (500_000_000, Page(limit=1, interval=None, include_docs=True)),
        (0, Page(limit=10_000, interval=100, include_docs=True)),
    ],
)
def test_the_larger_the_documents_the_smaller_the_page(average_bytes: float, expected: Page):
    assert plan_page(source(), average_bytes, include_docs=True) == expected


@pytest.mark.parametrize(("most", "limit"), [(1, 100), (100, 100), (1_901, 2_000), (50_000, 10_000)])
def test_a_page_is_no_longer_than_what_is_wanted(most: int, limit: int):
    assert plan_page(source(), 500, include_docs=True, most=most).limit == limit
    assert plan_page(source(), 500, include_docs=False, most=most).limit == min(limit, IDS_ROWS)


@pytest.mark.parametrize(("max_rate", "limit"), [(5, 100), (250, 200), (1e6, 10_000)])
def test_a_slowed_down_page_holds_what_may_come_in_a_second(max_rate: float, limit: int):
    assert plan_page(source(max_rate=max_rate), 500, include_docs=True).limit == limit


def test_a_page_of_ids_is_as_long_as_it_may_be_whatever_documents_weigh():
    assert plan_page(source(), 5_000_000, include_docs=False).limit == IDS_ROWS
    page = plan_page(source(page=1000), 5_000_000, include_docs=False)
    assert page == Page(limit=1000, interval=100, include_docs=False)


@pytest.mark.parametrize("seq", [0, 7, "7-g1A+/=", [7, "g1A"]])
def test_a_position_goes_into_the_query_as_it_came(seq: Any):
    from urllib.parse import parse_qs

    page = Page(limit=200, interval=100, include_docs=True)
    query = parse_qs(page_query(source(), Seq.of(seq), page), strict_parsing=True)
    assert query == {
        "feed": ["normal"],
        "style": ["all_docs"],
        "limit": ["200"],
        "seq_interval": ["100"],
        "include_docs": ["true"],
        "since": [seq if isinstance(seq, str) else Seq.of(seq).json],
    }


def test_the_tail_ends_when_idle_and_asks_for_every_position():
    query = tail_query(source(timeout="20s"), Seq.of("1-x"), feed="continuous")
    assert query == "feed=continuous&style=all_docs&include_docs=true&timeout=20000&since=1-x"
    apart = tail_query(source(timeout="20s", documents="bulk_get"), Seq.of("1-x"), feed="continuous")
    assert apart == "feed=continuous&style=all_docs&timeout=20000&since=1-x"


@pytest.mark.parametrize(
    ("options", "query", "body"),
    [
        ({}, "", None),
        ({"selector": {"a": 1}}, "&filter=_selector", b'{"selector":{"a":1}}'),
        ({"doc_ids": ["x"]}, "&filter=_doc_ids", b'{"doc_ids":["x"]}'),
        ({"design": True}, "&filter=_design", None),
    ],
)
def test_a_filter_in_the_server_is_part_of_the_request(options, query, body):
    if options:
        options |= {"on_filtered": "ignore", "deletes": "ignore"}
    filtered = source(**options)
    page = Page(limit=100, interval=None, include_docs=False)
    assert page_query(filtered, Seq.BEGINNING, page).endswith(f"since=0{query}")
    assert filter_body(filtered) == body


@pytest.mark.parametrize(
    "options",
    [
        {"selector": {"a": 1}},
        {"selector": {"a": 1}, "on_filtered": "ignore"},
        {"design": True, "doc_ids": ["a"], "on_filtered": "ignore", "deletes": "ignore"},
    ],
)
def test_a_filter_in_the_server_that_would_lose_something_is_refused(options):
    with pytest.raises(ValidationError):
        source(**options)


@pytest.mark.parametrize(
    ("average_bytes", "expected"),
    [
        (LARGE_DOCUMENT_BYTES - 1, Page(limit=500, interval=INTERVAL, include_docs=True)),
        (LARGE_DOCUMENT_BYTES, Page(limit=512, interval=None, include_docs=True)),
        (PAGE_BYTES / 600, Page(limit=600, interval=INTERVAL, include_docs=True)),
        (PAGE_BYTES / 599.5, Page(limit=500, interval=INTERVAL, include_docs=True)),
        (0.5, Page(limit=400, interval=INTERVAL, include_docs=True)),
    ],
)
def test_a_page_changes_its_shape_exactly_at_its_bounds(average_bytes: float, expected: Page):
    assert (
        plan_page(source(page=400 if average_bytes < 1 else 2000), average_bytes, include_docs=True)
        == expected
    )


def test_a_large_page_is_never_longer_than_configured():
    large = plan_page(source(page=100), LARGE_DOCUMENT_BYTES, include_docs=True)
    assert large == Page(limit=100, interval=None, include_docs=True)


@pytest.mark.parametrize(
    ("page", "query"),
    [
        (Page(limit=7, interval=None, include_docs=False), "feed=normal&style=all_docs&limit=7&since=0"),
        (
            Page(limit=7, interval=100, include_docs=True),
            "feed=normal&style=all_docs&limit=7&since=0&seq_interval=100&include_docs=true",
        ),
    ],
)
def test_a_query_names_only_what_a_page_has(page: Page, query: str):
    assert page_query(source(), Seq.BEGINNING, page) == query


def test_a_longpoll_has_a_limit_and_the_ids_of_a_group_are_named_alone():
    query = tail_query(source(timeout="1.5s"), Seq.of("1-x"), feed="longpoll", limit=10)
    assert query == "feed=longpoll&style=all_docs&include_docs=true&timeout=1500&since=1-x&limit=10"
    filtered = source(doc_ids=["a", "b"], on_filtered="ignore", deletes="ignore")
    assert filter_body(filtered, ["b"]) == b'{"doc_ids":["b"]}'


def test_the_bounds_of_a_page_are_those_that_were_measured():
    assert (INTERVAL, PAGE_BYTES, LARGE_DOCUMENT_BYTES) == (100, 8_388_608, 16_384)


FUNCTION = {"filter_function": "app/by region", "on_filtered": "ignore", "deletes": "ignore"}


def test_g5_a_filter_function_gets_its_arguments():
    options = SourceOptions(connection="c", database="db", **FUNCTION, filter_arguments={"region": "a&b=c"})
    assert options.is_filtered_by_server
    assert filter_query(options) == "&filter=app%2Fby+region&region=a%26b%3Dc"


@pytest.mark.parametrize(
    "wrong",
    [
        FUNCTION | {"filter_arguments": {"since": "0"}},
        FUNCTION | {"design": True},
        FUNCTION | {"deletes": "remove"},
        FUNCTION | {"filter_function": "_design"},
        FUNCTION | {"filter_function": None, "filter_arguments": {"a": "b"}},
    ],
)
def test_g5_a_filter_function_has_the_limits_of_filters_in_the_server(wrong):
    with pytest.raises(ValueError, match="filter"):
        SourceOptions(connection="c", database="db", **wrong)
