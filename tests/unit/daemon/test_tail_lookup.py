from __future__ import annotations

import pytest

from checkpoints import TailKey
from daemon.errors import UnknownPillowError
from daemon.tail_lookup import name_tail, resolve_tail

CASES, FORMS = TailKey("cases", "couch/cases"), TailKey("forms", "couch/forms")


@pytest.mark.parametrize("text", ["cases", "cases@couch/cases"])
def test_a_tail_is_named_by_its_pillow_or_in_full(text: str) -> None:
    assert resolve_tail(text, [CASES, FORMS]) == CASES


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("casse", "did you mean `cases`"),
        ("zzz", "one of cases, forms"),
        ("cases@x/y", "did you mean"),
    ],
)
def test_an_unknown_one_is_refused_with_the_remedy(text: str, remedy: str) -> None:
    with pytest.raises(UnknownPillowError, match=remedy):
        resolve_tail(text, [CASES, FORMS])


def test_a_name_that_several_have_is_refused() -> None:
    with pytest.raises(UnknownPillowError, match="say which"):
        resolve_tail("cases", [CASES, TailKey("cases", "couch/other")])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Remedy: `pillowd checkpoint reset`", "Remedy: `pillowd checkpoint reset cases@couch/cases`"),
        ("`pillowd verify --repair`", "`pillowd verify cases@couch/cases --repair`"),
        ("`pillowd verify KEY --repair`", "`pillowd verify cases@couch/cases --repair`"),
        ("`pillowd checkpoint reset other`", "`pillowd checkpoint reset other`"),
        ("`pillowd status`", "`pillowd status`"),
    ],
)
def test_i5_every_command_of_a_reason_names_its_tail(text: str, named: str) -> None:
    assert name_tail(text, TailKey("cases", "couch/cases")) == named
