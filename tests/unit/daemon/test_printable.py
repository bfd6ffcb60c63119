"""Text that others wrote is shown; the terminal does not obey control sequences in it."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli.formatting import new_grid, new_table, print_table
from daemon.cli.output import echo, print_json, print_json_line
from daemon.printable import printable, printable_json, printable_lines

ROOT = Path(__file__).parents[3]
EVIL = "a\x1b[2Jb\x07c\x00d\x9b31me\u202ef\u200bg\x7fh\r"
#: Any text, lone surrogates too.
TEXT = st.text(st.characters(codec=None, categories=None))


def obeyed(text: str) -> list[str]:
    """Return the characters that a terminal might obey."""
    return [c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


@given(TEXT)
def test_d3_nothing_that_is_shown_is_obeyed_by_a_terminal(text: str) -> None:
    assert obeyed(printable(text)) == []
    assert set(obeyed(printable_lines(text))) <= {"\n"}


@given(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=5))
def test_d3_json_that_is_shown_means_the_same_and_is_not_obeyed(value: object) -> None:
    shown = printable_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(shown) == value
    assert set(obeyed(shown)) <= {"\n"}


@pytest.mark.parametrize("text", ["Größe", "日本　語", "5\xa0€", "", "a b", "😀"])
def test_d3_letters_of_every_script_stay_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_d3_every_way_to_print_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    echo(EVIL)
    echo(EVIL, err=True)
    print_json({EVIL: EVIL})
    print_json_line([EVIL])
    for made in (new_table("a"), new_grid()):
        made.add_row(EVIL)
        print_table(made)
    captured = capsys.readouterr()
    assert set(obeyed(captured.out + captured.err)) == {"\n"}
    assert captured.out.count(r"\u202e") == 6


def test_d3_commands_print_in_no_other_way() -> None:
    """`output.py`, and tables, are the only ways; a completion script and a man page are ours."""
    allowed = {"output.py", "completion.py", "man_page.py"}
    unescaped = re.compile(r"click\.(echo|secho|echo_via_pager)\(|(?<![.\w])(?<!def )print\(")
    for path in (ROOT / "daemon").rglob("*.py"):
        if path.name not in allowed:
            assert not unescaped.search(path.read_text()), path
