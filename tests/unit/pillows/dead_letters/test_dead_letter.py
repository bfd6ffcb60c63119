"""What a dead letter says of an error, and what it leaves out."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from checkpoints import TailKey
from pillows.dead_letters.dead_letter import DeadLetter, make_dead_letter
from pillows.errors import PermanentError
from pillows.models import Document
from pillows.pillow import Pillow
from pillows.stages.declarative import DeclarativeStep
from pillows.stages.document_paths import getter
from pillows.stages.filters import JmespathFilter, KeepAll, PythonFilter
from pillows.stages.transforms import Chain, ChunkedTransform, PythonTransform
from pillows.user_code import MAX_ERROR_CHARACTERS
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import MemoryTransport
from tests.support.recorder import Recorder
from tests.support.tails import plan

PRIVATE = "HIV positive"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("starts_with(diag, 'H')", r"starts_with\(\) needs string, not array"),
        ("length(n)", r"length\(\) needs string, array, object, not number"),
        ("sort(mixed)", r"sort\(\) needs"),
        ("abs(@)", r"abs\(\) needs number, not object"),
        ("nosuch(diag)", r"nosuch"),
        ("length(diag, n)", r"1 argument for function length\(\)"),
    ],
)
def test_an_expression_that_does_not_fit_is_told_by_function_and_types_alone(path, reason):
    document: Any = {"diag": [PRIVATE], "n": 5, "mixed": [PRIVATE, 5]}
    for look in (
        lambda: getter(path)(document),
        lambda: JmespathFilter(f"doc | {path}")(change("a", **document)),
    ):
        with pytest.raises(PermanentError, match=reason) as raised:
            look()
        assert PRIVATE not in str(raised.value)
        assert raised.value.__cause__ is None


def test_a_letter_and_the_line_in_the_log_quote_no_more_than_a_letter_may(tmp_path, running):
    def row(doc):
        raise ValueError(f"what is this? {doc}")

    seen = Recorder()
    feed = ListFeed([batch(1, change("a", text="y" * 5000), caught_up=True)])
    pillow = Pillow(
        name="cases", outputs=("cases",), filter=KeepAll(), transform=PythonTransform(row, ("cases",))
    )
    run = running(plan(tmp_path, feed, MemoryTransport(), pillow=pillow, observer=seen, exception_text=True))
    run.until(lambda: seen.of("dead_letter"))
    assert len(seen.of("dead_letter")[0]["error"]) == MAX_ERROR_CHARACTERS


def test_a_letter_of_a_transport_is_cut_wherever_it_is_made():
    dead_letter = DeadLetter(
        tail=TailKey("p", "couch/db"),
        transport="t",
        id="a",
        rev="1-a",
        leaf_version=1,
        stage="transport",
        error="x" * 5000,
    )
    assert len(dead_letter.error) == MAX_ERROR_CHARACTERS


# --- where in a user's code

MILL = """\
import json


def grind(doc):
    return turn(doc["n"])


def turn(n):
    if n == 7:
        raise ValueError("no sevens")
    return json.loads(n)


def all_of(docs):
    return [grind(doc) for doc in docs]
"""


def document(n):
    raw = msgspec.Raw(msgspec.json.encode({"_id": "a", "n": n}))
    return Document(id="a", rev="1-a", leaf_version=1, deleted=False, raw=raw)


@pytest.fixture
def mill(tmp_path):
    path, names = tmp_path / "mill.py", {}
    exec(compile(MILL, str(path), "exec"), names)
    return names


def failure(call, *args):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is
        call(*args)
    return make_dead_letter(
        TailKey("p", "couch/db"), change("a"), "transform", raised.value, with_text=True
    ).error


@pytest.mark.parametrize(
    ("n", "said"),
    [(7, r"ValueError: no sevens \(.*mill.py:10, in turn\)"), ("{", r"JSON.*mill.py:11, in turn\)")],
)
def test_a_letter_names_the_line_of_the_users_code_that_raised(mill, n, said):
    wanted = change("a", n=n)
    assert re.fullmatch(said, failure(PythonFilter(mill["grind"]), wanted))
    for transform in (
        PythonTransform(mill["grind"], ("c",)),
        Chain([DeclarativeStep(), mill["grind"]], ("c",)),
    ):
        assert re.fullmatch(said, failure(transform, document(n)))
    error: Any
    (error,) = ChunkedTransform(mill["all_of"], ("c",), chunk=5).many([document(n)])
    assert re.fullmatch(
        said, make_dead_letter(TailKey("p", "couch/db"), wanted, "transform", error, with_text=True).error
    )


def test_a_long_reason_leaves_room_for_the_line(mill):
    def grind(doc):
        raise ValueError("x" * 5000)

    said = failure(PythonFilter(grind), change("a"))
    assert len(said) == MAX_ERROR_CHARACTERS
    assert said.endswith(", in grind)")


def test_an_error_of_pillowds_own_names_no_line():
    assert failure(Chain([DeclarativeStep(types={"n": "integer"})], ("c",)), document("x")) == (
        "PermanentError: The field 'n' has a text that is not a valid integer."
    )
    assert (
        make_dead_letter(
            TailKey("p", "couch/db"), change("a"), "filter", ValueError("never raised"), with_text=True
        ).error
        == "ValueError: never raised"
    )
