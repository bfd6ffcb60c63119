"""Scrapes within a second share one page."""

from __future__ import annotations

import gevent
from gevent.event import Event

from daemon.metrics.pages import Page, Pages
from tests.support.clock import FakeClock

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Renderer:
    """Numbers what it makes, and waits meanwhile for who may hold it up."""

    def __init__(self) -> None:
        self.made = 0
        self.began, self.may_end = Event(), Event()
        self.may_end.set()

    def render(self, accept: str, accept_encoding: str) -> Page:
        self.made += 1
        number = self.made
        self.began.set()
        assert self.may_end.wait(60)
        return Page(media_type=accept, text=str(number).encode(), encoding=accept_encoding)


def make() -> tuple[Pages, Renderer, FakeClock]:
    clock, renderer = FakeClock(auto=False), Renderer()
    return Pages(renderer.render, clock), renderer, clock


def test_a_page_is_shared_for_a_second() -> None:
    pages, _, clock = make()
    assert [pages.get().text, pages.get().text] == [b"1", b"1"]
    clock.advance(0.99)
    assert pages.get().text == b"1"
    clock.advance(0.01)
    assert pages.get().text == b"2"


def test_each_format_has_a_page_of_its_own() -> None:
    pages, _, _ = make()
    formats = [("", ""), ("", "gzip"), (OPEN_METRICS, ""), (OPEN_METRICS, "br, gzip")]
    first = [pages.get(*each) for each in formats]
    assert [page.text for page in first] == [b"1", b"2", b"3", b"4"]
    assert [pages.get(*each) for each in formats] == first


def test_who_asks_while_a_page_is_made_waits_for_it() -> None:
    pages, renderer, _ = make()
    renderer.may_end.clear()
    asking = [gevent.spawn(pages.get) for _ in range(5)]
    assert renderer.began.wait(60)
    gevent.idle()
    renderer.may_end.set()
    gevent.joinall(asking, raise_error=True)
    assert {each.value.text for each in asking} == {b"1"}
    assert renderer.made == 1


def test_a_client_that_goes_away_while_its_page_is_made_holds_up_nobody() -> None:
    pages, renderer, _ = make()
    renderer.may_end.clear()
    gone = gevent.spawn(pages.get)
    assert renderer.began.wait(60)
    gone.kill()
    renderer.may_end.set()
    assert pages.get().text == b"2"
