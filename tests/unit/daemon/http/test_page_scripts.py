"""What the page's scripts make of facts: their pure functions, run in QuickJS."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import quickjs  # type: ignore[import-untyped]

from daemon.http.routes import page

FOLDER = Path(page.__file__).parents[1] / "page"


@pytest.fixture(scope="module")
def script() -> Any:
    context = quickjs.Context()
    context.eval("var Intl = {NumberFormat: function() {}};")
    for name in ("format.js", "pillows.js", "dom.js", "charts.js", "table.js", "drawer.js"):
        text = (FOLDER / name).read_text()
        context.eval(re.sub(r"^export |^import .*$", "", text, flags=re.MULTILINE))

    def run(expression: str) -> Any:
        return json.loads(context.eval(f"JSON.stringify({expression}) ?? 'null'"))

    return run


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("count(null)", "\N{EN DASH}"),
        ("count(0)", "0"),
        ("count(1234567)", "1,234,567"),
        ("rate(0)", "0"),
        ("rate(0.01)", "<0.1"),
        ("rate(3.14)", "3.1"),
        ("rate(9.96)", "10"),
        ("rate(12345.6)", "12,346"),
        ("duration(null)", "\N{EN DASH}"),
        ("duration(0)", "0s"),
        ("duration(0.034)", "34 ms"),
        ("duration(59.6)", "1m"),
        ("duration(3725)", "1h 2m"),
        ("duration(86400 * 3 + 5)", "3d"),
        ("duration(3600 * 5 + 59)", "5h"),
        ("ago(99.6, 100)", "now"),
        ("ago(39, 100)", "1m 1s ago"),
        ("ago(null, 100)", "\N{EN DASH}"),
        ("percent(0.9999)", "99 %"),
        (
            r'printable("a\u202eb\x1b[31m\u0000\ud800 ünï 中 עב 😀")',
            "a\\u202eb\\u001b[31m\\u0000\\ud800 ünï 中 עב 😀",
        ),
    ],
)
def test_numbers_and_texts(script: Any, expression: str, text: str) -> None:
    assert script(expression) == text


def test_a_reason_is_divided_into_cause_and_remedy(script: Any) -> None:
    assert script('splitReason("gone. Remedy: `pillowd checkpoint reset x` or else")') == {
        "reason": "gone.",
        "remedy": "`pillowd checkpoint reset x` or else",
    }
    assert script('splitReason("refused")') == {"reason": "refused", "remedy": ""}
    assert script('splitReason("x Remedy:")') == {"reason": "x", "remedy": ""}


def commands(script: Any, **facts: Any) -> list[str]:
    given = {
        "pillow": "cases",
        "source": "couch/cases",
        "state": "live",
        "reason": "",
        "dead_letters": 0,
        **facts,
    }
    return [command for command, _ in script(f"commands({json.dumps(given)})")]


def test_the_commands_fit_the_trouble(script: Any) -> None:
    assert commands(script)[0] == "pillowd tap cases@couch/cases"
    assert commands(script, state="paused")[0] == "pillowd resume cases@couch/cases"
    assert commands(script, state="backing-off")[0] == "pillowd restart cases@couch/cases"
    assert commands(script, dead_letters=2)[:2] == [
        "pillowd dead-letter list cases@couch/cases",
        "pillowd dead-letter retry cases@couch/cases --all",
    ]
    failed = commands(
        script, state="failed", reason="x. Remedy: `pillowd checkpoint reset cases@couch/cases`"
    )
    assert failed[:2] == ["pillowd checkpoint reset cases@couch/cases", "pillowd restart cases@couch/cases"]
    twice = commands(script, state="failed", reason="`pillowd restart cases@couch/cases`")
    assert twice.count("pillowd restart cases@couch/cases") == 1


def test_a_name_that_a_shell_would_read_otherwise_is_quoted(script: Any) -> None:
    assert commands(script, source="couch/o'b $(x)")[0] == "pillowd tap 'cases@couch/o'\\''b $(x)'"


PILLOWS = """
function given(name, more) {
  return {pillow: name, source: "c/" + name, state: "live", reason: "", dead_letters: 0, ...more};
}
function pillowsOf(...all) {
  const made = new Pillows();
  made.apply({complete: true, pillows: all, gone: [], daemon: {at: 50, up_seconds: 10}}, 100);
  return made;
}
function namesOf(pillows, filter) { return pillows.listed(filter ?? "").map(({facts}) => facts.pillow); }
"""


def run(script: Any, body: str) -> Any:
    return script(f"(() => {{ {PILLOWS} {body} }})()")


def test_the_worst_come_first_and_small_differences_move_no_row(script: Any) -> None:
    body = """
    const p = pillowsOf(given("a", {lag_seconds: 0.2}), given("b", {lag_seconds: 0.4}),
      given("c", {state: "failed"}), given("d", {state: "backing-off", lag_seconds: 5}),
      given("e", {state: "backing-off", lag_seconds: 5000}),
      given("f", {lag_seconds: 90}), given("g", {dead_letters: 1}), given("h", {state: "catching-up"}));
    return namesOf(p);
    """
    assert run(script, body) == ["c", "e", "d", "h", "g", "f", "a", "b"]


def test_a_filter_finds_all_its_words_anywhere(script: Any) -> None:
    body = """
    const p = pillowsOf(given("cases", {reason: "Connection refused"}), given("visits"));
    return ["REFUSED case", "live", "c/vis", "nothing"].map((text) => namesOf(p, text));
    """
    assert run(script, body) == [["cases"], ["cases", "visits"], ["visits"], []]


def test_messages_are_merged_and_new_states_announced(script: Any) -> None:
    body = """
    const p = pillowsOf(given("a", {pending: 5, checkpoint_age_seconds: 2}), given("b"));
    const changed = [{pillow: "a", source: "c/a", pending: 6}, {pillow: "b", source: "c/b", state: "failed"}];
    const said = p.apply({pillows: changed, gone: []}, 103);
    const a = p.byKey.get("a@c/a"), saved = ago(a.facts.checkpoint_at, p.daemonTime(110));
    const result = {said, pending: a.facts.pending, state: a.facts.state, saved};
    p.apply({pillows: [], gone: ["b@c/b"]}, 104);
    result.left = namesOf(p);
    p.apply({complete: true, pillows: [given("z")], gone: []}, 105);
    return {...result, after: namesOf(p), ahead: p.aheadSeconds};
    """
    assert run(script, body) == {
        "said": ["b is failed"],
        "pending": 6,
        "state": "live",
        "saved": "12s ago",
        "left": ["a"],
        "after": ["z"],
        "ahead": 50,
    }


def test_points_are_kept_for_ten_minutes_in_their_order(script: Any) -> None:
    body = """
    const p = pillowsOf(given("a", {pending: 0})), a = p.byKey.get("a@c/a");
    for (let second = 0; second < 700; second++) {
      a.facts.pending = second;
      p.note(1000 + second);
    }
    const [times, values] = p.points(a, "lag");
    return [times.length, times[0], times.at(-1), values[0], values.at(-1), p.points(a, "rate")[1][0]];
    """
    assert run(script, body) == [600, 1100, 1699, 100, 699, None]


def test_lines_span_whole_minutes_as_they_fill(script: Any) -> None:
    body = """
    const p = pillowsOf(given("a")), spans = [p.span(1000)];
    for (let second = 0; second < 1300; second++) {
      p.note(1000 + second);
      if ([0, 59, 61, 130, 599, 1299].includes(second)) spans.push(p.span(1000 + second));
    }
    return spans;
    """
    assert run(script, body) == [60, 60, 60, 120, 180, 600, 600]


def test_a_line_shows_the_peak_of_each_step_and_no_gap_as_zero(script: Any) -> None:
    body = """
    const times = [400, 401, 700, 1000], values = [3, 9, null, 5];
    return peaksByStep(times, values, 1000, 600, 100);
    """
    assert run(script, body) == [[0, 9], [100, 5]]


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([], "No pillows"),
        ([["live", 1]], "The pillow is live"),
        ([["live", 2]], "Both pillows are live"),
        ([["live", 198]], "All 198 pillows are live"),
        ([["failed", 1], ["live", 199]], "1 of 200 pillows has failed"),
        ([["backing-off", 3], ["live", 197]], "3 of 200 pillows are backing-off"),
    ],
)
def test_one_sentence_says_how_all_is(script: Any, counts: Any, text: str) -> None:
    assert script(f"verdict({json.dumps(counts)})") == text


def test_the_progress_of_a_pass_is_told_where_the_numbers_say_it(script: Any) -> None:
    assert script("passShare({pass_number: 1, changes: 75, pending: 25})") == 0.75
    assert script("passShare({pass_number: 2, changes: 75, pending: 25})") is None
    assert script("passShare({pass_number: 1, changes: 75, pending: null})") is None


def test_databases_in_trouble_are_counted_and_the_worst_state_is_named(script: Any) -> None:
    counts = '{parked: 9982, queued: 2, "backing-off": 7, failed: 9}'
    assert script(f"problemOfDatabases({counts})") == "9 failed, 7 backing-off of 10,000 databases"
    assert script(f"worstState({counts})") == "failed"
    assert script(f"countDatabases({counts})[3]") == ["parked", 9982]
    assert script("problemOfDatabases({parked: 3, queued: 1})") == ""
    assert script("[problemOfDatabases(null), worstState(null)]") == ["", None]
    states = '["parked", "queued", "active", "backing-off", "failed", "paused", "deleted"]'
    assert "starting" not in script(f"{states}.map(tailState)")


def test_the_delivery_shown_is_that_of_the_target_that_is_worst_off(script: Any) -> None:
    assert script("deliveredAt({transports: [{delivered_at: 90}, {delivered_at: 40}]})") == 40
    assert script("deliveredAt({transports: [{delivered_at: 90}, {delivered_at: null}]})") is None
    assert script("deliveredAt({})") is None


def test_a_backfill_is_told_with_the_time_to_go(script: Any) -> None:
    sent = '{state: "running", done: 1200, documents: 20000, per_second: 600, seconds_to_go: 31}'
    assert script(f'remark({{state: "live", backfill: {sent}}}, 0)') == "backfill, 31s to go"
    assert script(f"describeBackfill({sent})") == "running, 1,200 of 20,000 documents, 600 / s, 31s to go"
    listing = '{state: "waiting", done: 0, documents: null, per_second: 0, seconds_to_go: null}'
    assert script(f"describeBackfill({listing})") == "waiting, 0 documents"


def test_the_last_comparison_is_told_and_a_repair_offered(script: Any) -> None:
    differences = '{warehouse: {missing: 1200, stale: 0}, "\\u202ex": {extra: 1}}'
    different = f'{{differences: {differences}, repaired: 0, reason: ""}}'
    assert script(f"describeComparison({different})") == "1,200 missing in warehouse, 1 extra in \u202ex"
    assert script('describeComparison({differences: {a: {missing: 0}}, repaired: 0, reason: ""})') == "equal"
    assert script('describeComparison({differences: {}, repaired: 3, reason: ""})') == "equal, 3 repaired"
    assert script('describeComparison({differences: {}, repaired: 0, reason: "gone"})') == "failed: gone"
    pillow = '{pillow: "a", source: "c/d", state: "live", reason: "", dead_letters: 0, comparison: %s}'
    repair = ["pillowd verify a@c/d --repair", "write what differs again"]
    assert repair in script(f"commands({pillow % different})")
    assert repair not in script(f"commands({pillow % 'null'})")


def texts(described: Any) -> list[str]:
    """Return the texts of what is described, in their order."""
    if not isinstance(described, dict):
        return [str(described)] if described != "" else []
    return [text for child in described["children"] for text in texts(child)]


def test_a_row_says_how_a_pillow_is(script: Any) -> None:
    body = """
    const p = pillowsOf(given("cases", {state: "backing-off", reason: "`warehouse` refused. Remedy: start it",
      pending: 1200, lag_seconds: 61, changes_per_second: 0.5, dead_letters: 3, history: [{at: 40}],
      transports: [{delivered_at: 20}]}));
    p.note(50);
    const [cases] = p.listed("");
    return row(cases, {points: (kind) => p.points(cases, kind), now: 50, span: 60, isSelected: true});
    """
    described = run(script, body)
    assert described["attributes"]["class"] == "selected behind has-dead"
    assert texts(described) == [
        *("backing-off", "for 10s", "cases", "c/cases", "1,200", "1m 1s"),
        *("0.5", "30s ago", "3", "warehouse refused."),
    ]


def test_the_drawer_says_first_what_to_do_where_there_is_trouble(script: Any) -> None:
    body = """
    const [failed, live] = pillowsOf(
      given("a", {state: "failed", reason: "`x` is gone. Remedy: create `x`"}), given("b")).listed("");
    return [above(failed, {}), below(failed, {}, 0), above(live, {}), below(live, {}, 0)].map(
      (parts) => h("div", {}, parts));
    """
    troubled_above, troubled_below, above, below = map(texts, run(script, body))
    assert troubled_above[:12] == [
        *("a", "c/a", "\N{MULTIPLICATION SIGN}", "failed", "Reason", "x", " is gone.", "Remedy"),
        *("Create ", "x", "Commands to type", "start it again"),
    ]
    assert "Commands to type" not in troubled_below
    assert above == ["b", "c/b", "\N{MULTIPLICATION SIGN}", "live"]
    assert "Commands to type" in below
