"""Compare a pillow on several databases with its source: one database after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from checkpoints import TailKey
from daemon.cli.control_client import Call
from pillows.models import join_key
from pillows.verify.verifier import EXAMPLES, Report, TargetReport


def list_databases(call: Call, tail: TailKey, after: str) -> Iterator[TailKey]:
    """Yield the databases of a pillow in the order of their names; without those that are deleted.

    Args:
        call: calls the API.
        tail: the pillow's.
        after: the name after which to start, to continue an earlier run; "" to start at the first.
    """
    connection, place = tail.source.partition("/")[0], after
    while True:
        page = call("list_databases", key=tail.pillow, source=tail.source, after=place)
        for each in page["databases"]:
            if each["state"] != "deleted":
                yield TailKey(tail.pillow, f"{connection}/{each['database']}")
        if (place := page["next"]) is None:
            return


def join_reports(
    tails: Iterator[TailKey], compare: Callable[[TailKey], Report], show: Callable[[TailKey, Report], None]
) -> Report:
    """Compare databases one at a time, to limit memory, and return one report for all.

    Args:
        tails: the databases.
        compare: compares one.
        show: called with each report.
    """
    whole: Report | None = None
    for tail in tails:
        report = compare(tail)
        show(tail, report)
        named = replace(report, targets=[_with_keys(each, tail.database) for each in report.targets])
        whole = named if whole is None else _add(whole, named)
    return whole or Report(documents=0, targets=[], in_flight=0, dead=0)


def _with_keys(report: TargetReport, database: str) -> TargetReport:
    """Return the report with the database in each example."""
    examples = {kind: [join_key(database, id) for id in ids] for kind, ids in report.examples.items()}
    return replace(report, examples=examples)


def _add(one: Report, other: Report) -> Report:
    compared = None if one.compared is None or other.compared is None else one.compared + other.compared
    return replace(
        one,
        documents=one.documents + other.documents,
        targets=[_add_target(*pair) for pair in zip(one.targets, other.targets, strict=True)],
        in_flight=one.in_flight + other.in_flight,
        dead=one.dead + other.dead,
        compared=compared,
    )


def _add_target(one: TargetReport, other: TargetReport) -> TargetReport:
    return replace(
        one,
        stored=one.stored + other.stored,
        kept=one.kept + other.kept,
        counts={kind: count + other.counts[kind] for kind, count in one.counts.items()},
        examples={kind: [*ids, *other.examples[kind]][:EXAMPLES] for kind, ids in one.examples.items()},
    )
