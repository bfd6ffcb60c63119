"""Options of `pillowd verify`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli.commands.operate.verify import verify


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--sample", "5"], "--sample needs --content."),
        (["--content", "--seed", "5"], "--seed needs --sample."),
        (["--content", "--sample", "0"], "0 is not in the range"),
    ],
)
def test_i6_an_option_that_would_do_nothing_is_refused(
    tmp_path: Path, options: list[str], reason: str
) -> None:
    file = tmp_path / "pillowd.yaml"
    done = CliRunner().invoke(verify, ["cases", "--config", str(file), *options])
    assert done.exit_code == 2
    assert reason in done.output
