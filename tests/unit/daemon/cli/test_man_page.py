"""The man page is made from the commands."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from daemon.cli.introspect import list_commands
from daemon.cli.man_page import escape, format_man_page


def test_the_man_page_has_every_command_and_option():
    text = format_man_page()

    for page in list_commands():
        assert escape(page.usage) in text
        for option in page.options:
            assert escape(option.names) in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff to read it")
def test_the_man_page_is_read_without_a_warning():
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-z"],
        input=format_man_page(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""


def test_no_text_is_taken_for_a_macro():
    assert escape(".pillowd \\fB") == "\\&.pillowd \\efB"
