"""`verify` while the pillow runs: a change on its way is no difference, one that it has passed is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from gevent.event import Event

from checkpoints import Checkpoint, Seq
from pillows.errors import ConfigError, RetryableError
from pillows.feed.base import DatabaseIdentity
from pillows.models import Change, ChangeBatch, DocumentRows, write_version
from pillows.pillow import Pillow
from pillows.stages.filters import KeepAll
from pillows.stages.transforms import PassThrough
from pillows.transports.base import Stored
from pillows.verify.comparison_table import ComparisonTable
from pillows.verify.contents import ContentSelection
from pillows.verify.verifier import Report, TargetReport, Verifier, VerifyContext
from tests.support.memory_transport import MemoryTransport

NONE = {"missing": 0, "stale": 0, "phantom": 0}


class Target(MemoryTransport):
    """Holds versions by id; `before_answer` is called before each answer."""

    verifiable = True

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, int] = {}
        self.asked: list[Sequence[str] | None] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.altered: set[str] = set()
        self.compared: list[str] = []

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        self.asked.append(ids)
        self.before_answer()
        yield [
            Stored(id=id, write_version=write_version(1, version))
            for id, version in self.held.items()
            if ids is None or id in ids
        ]

    def describe_incomparable(self, output: str) -> str:
        return ""

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        self.compared += [document.id for document in documents]
        same = {each.id for each in documents if self.held.get(each.id) == each.leaf_version}
        found = self.altered & same
        self.before_answer()
        return found


class Scene:
    """A source, a pillow and a target.

    Attributes:
        log: the source's changes; a position is how many there were.
        passed: where the pillow's checkpoint is.
        on_wait: what happens while `verify` waits, in order.
        troubles: signs of life of the feed, 5 s apart, before it gives anything: why it is away.
        kept: what of a pillow's rows may outlive its documents.
    """

    def __init__(self) -> None:
        self.log: list[Change] = []
        self.passed = 0
        self.target = Target()
        self.on_wait: list[Callable[[], None]] = []
        self.now = 0.0
        self.trouble: str | None = None
        self.troubles: list[str | None] = []
        self.kept: dict[str, Any] = {}

    def put(self, id: str, version: int = 1, *, deleted: bool = False) -> None:
        """Changes a document in the source."""
        self.log.append(Change(id, (f"{version}-aa",), version, deleted=deleted))

    def run(self) -> None:
        """The pillow does all there is to do."""
        for change in self.log[self.passed :]:
            self.target.held.pop(change.id, None)
            if not change.deleted:
                self.target.held[change.id] = change.leaf_version
        self.passed = len(self.log)

    def verify(
        self, *, wait_seconds: float = 60.0, contents: ContentSelection | None = None
    ) -> tuple[Report, TargetReport]:
        pillow = Pillow(
            name="p", outputs=["cases"], filter=KeepAll(), transform=PassThrough(["cases"]), **self.kept
        )
        subject = VerifyContext(
            pillow=pillow,
            feed=self,  # type: ignore[arg-type] # only what is asked for here
            transports=[self.target],
            checkpoint=lambda: Checkpoint(seq=Seq.of(self.passed)),
            dead=list,
            clock=self,  # type: ignore[arg-type] # no wall clock is needed
            wait_seconds=wait_seconds,
            source_timeout_seconds=30.0,
            contents=contents,
        )
        with ComparisonTable() as scratch:
            report = Verifier(subject, scratch).verify()
        return report, report.targets[0]

    # What `verify` asks of a feed.

    def identify(self) -> DatabaseIdentity:
        return DatabaseIdentity()

    def batches(self, since: Seq, identity: DatabaseIdentity | None, stop: Event) -> Iterator[ChangeBatch]:
        for trouble in self.troubles:
            self.trouble = trouble
            self.now += 5
            yield ChangeBatch(changes=(), seq=None)
        begin = int(str(since)) if since != Seq.BEGINNING else 0
        latest = {change.id: change for change in self.log[begin:]}
        yield ChangeBatch(changes=list(latest.values()), seq=Seq.of(len(self.log)), caught_up=True)

    def current(self, ids: Sequence[str]) -> list[Change]:
        latest = {change.id: change for change in self.log}
        return [msgspec.structs.replace(latest[id], raw=msgspec.Raw(b"{}")) for id in ids]

    def attachment(self, *what: Any) -> None:
        return None

    def pending(self, since: Seq) -> int:
        return len(self.log)

    def fetch(self, change: Change) -> Any:
        raise AssertionError("no document is needed")

    # What it asks of a clock.

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: Event, seconds: float) -> bool:
        self.now += seconds
        if self.on_wait:
            self.on_wait.pop(0)()
        return False


@pytest.fixture
def scene() -> Scene:
    """Three documents that the target has."""
    scene = Scene()
    for id in ("a", "b", "c"):
        scene.put(id)
    scene.run()
    return scene


def test_what_the_pillow_has_not_passed_is_waited_for_and_then_equal(scene: Scene) -> None:
    scene.put("a", 2)
    scene.put("b", 2, deleted=True)
    scene.put("d")
    scene.on_wait = [lambda: None, scene.run]

    report, found = scene.verify()

    assert (found.counts, report.in_flight, scene.now) == (NONE, 0, 2.0)


def test_what_still_differs_when_the_pillow_has_passed_it_is_a_difference(scene: Scene) -> None:
    scene.put("a", 2)
    scene.put("d")

    def lose() -> None:
        scene.run()
        scene.target.held["a"] = 1
        del scene.target.held["d"]

    scene.on_wait = [lose]
    report, found = scene.verify()

    assert (found.counts, report.in_flight) == (NONE | {"missing": 1, "stale": 1}, 0)
    assert found.examples == {"missing": ["d"], "stale": ["a"], "phantom": []}


def test_what_is_never_passed_is_told_when_the_time_is_up_and_is_no_difference(scene: Scene) -> None:
    scene.put("a", 2)
    report, found = scene.verify(wait_seconds=5)
    assert (found.counts, report.in_flight, scene.now) == (NONE, 1, 5.0)


@pytest.mark.parametrize("reading", ["all", "again"])
def test_what_changes_while_the_target_is_read_is_on_its_way(scene: Scene, reading: str) -> None:
    """The pillow may be so fast that the target has what the source was not yet read for."""
    del scene.target.held["c"]

    def meanwhile() -> None:
        if (scene.target.asked[-1] is None) == (reading == "all") and len(scene.log) == 3:
            scene.put("a", 2)
            scene.put("b", 2, deleted=True)
            scene.put("c", 2)
            scene.put("d")
            scene.run()

    scene.target.before_answer = meanwhile
    report, found = scene.verify()

    assert (found.counts, report.in_flight) == (NONE, 0)


def test_a_source_that_is_written_to_all_the_time_is_not_waited_for(scene: Scene) -> None:
    """Only what differed at first must come to rest; the planted difference is found all the same."""
    del scene.target.held["b"]

    def meanwhile() -> None:
        scene.put(f"new-{len(scene.log)}")

    scene.put("a", 2)
    scene.target.before_answer = meanwhile
    scene.on_wait = [scene.run]
    report, found = scene.verify()

    assert (found.counts, report.in_flight) == (NONE | {"missing": 1}, 0)
    assert found.examples["missing"] == ["b"]
    assert scene.now <= 2.0


def test_a_source_that_stays_away_ends_it_with_the_reason(scene: Scene) -> None:
    """The feed by itself would try again for ever."""
    scene.troubles = ["it answered 503"] * 1000
    with pytest.raises(RetryableError, match="away for 30 s: it answered 503"):
        scene.verify()
    assert scene.now == 35.0


def test_a_source_that_was_away_now_and_then_is_read_to_its_end(scene: Scene) -> None:
    scene.troubles = [*["away"] * 6, None] * 20
    _, found = scene.verify()
    assert found.counts == NONE


@pytest.mark.parametrize("kept", ["keep_deleted", "keep_departed"])
def test_rows_that_may_outlive_their_documents_are_kept_and_no_phantoms(scene: Scene, kept: str) -> None:
    """A purge, or a server's filter, tells of nothing: such rows cannot be told from phantoms."""
    scene.log = [change for change in scene.log if change.id != "b"]
    scene.kept = {kept: True}
    report, found = scene.verify()
    assert (report.equal, found.counts, found.kept, found.stored) == (True, NONE, 1, 3)


def test_rows_of_deleted_documents_are_kept_where_deletions_are_ignored(scene: Scene) -> None:
    scene.put("a", 2, deleted=True)
    scene.passed = len(scene.log)
    scene.kept = {"keep_deleted": True}
    _, found = scene.verify()
    assert (found.counts, found.kept) == (NONE, 1)

    scene.kept = {"keep_departed": True}
    _, found = scene.verify()
    assert (found.counts, found.kept) == (NONE | {"phantom": 1}, 0)


def test_i6_rows_that_were_altered_are_found_where_contents_are_compared(scene: Scene) -> None:
    scene.target.altered = {"b"}
    assert scene.verify()[0].equal
    report, found = scene.verify(contents=ContentSelection())
    assert (report.equal, report.compared) == (False, 3)
    assert found.counts == NONE | {"altered": 1}
    assert found.examples["altered"] == ["b"]


def test_i6_rows_that_are_written_again_meanwhile_are_not_altered(scene: Scene) -> None:
    """The second look is what counts, and in it only what the pillow has passed."""
    scene.target.altered = {"a", "b", "c"}
    turns = 0

    def meanwhile() -> None:
        nonlocal turns
        turns += 1
        if scene.target.compared and turns < 5:
            scene.target.altered = {"b"}
            scene.put("a", 2)
            scene.run()
            scene.put("c", 2)

    scene.target.before_answer = meanwhile
    _, found = scene.verify(wait_seconds=0, contents=ContentSelection())
    assert found.counts == NONE | {"altered": 1}
    assert found.examples["altered"] == ["b"]


def test_i6_a_document_that_is_missing_or_stale_is_only_that(scene: Scene) -> None:
    scene.target.altered = {"a", "b", "c"}
    scene.target.held["a"] = 9
    del scene.target.held["b"]
    _, found = scene.verify(contents=ContentSelection())
    assert found.counts == {"missing": 1, "stale": 1, "phantom": 0, "altered": 1}


def test_i6_contents_of_a_target_that_tells_none_are_refused(scene: Scene) -> None:
    scene.target.describe_incomparable = lambda output: "a pipeline changes them"
    with pytest.raises(ConfigError, match=r"memory/cases: a pipeline changes them.*without `--content`"):
        scene.verify(contents=ContentSelection())
