"""`pillowd store`: what is wrong with a store on disk, and a whole copy of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

import checkpoints
from daemon.cli.exit_codes import Exit
from daemon.cli.options import json_option, print_json

_PATH = click.Path(path_type=Path)


@click.group()
def store() -> None:
    """Checks and repairs stores on disk: checkpoints, dead letters, your own.

    PATH is a store's directory. It is never changed, and a daemon may have it open meanwhile.
    """


@store.command()
@click.argument("path", type=_PATH)
@json_option
def check(path: Path, as_json: bool) -> Exit:
    """Says what is wrong with the store at PATH, by file and line."""
    findings = checkpoints.check(path)
    harmful = [finding for finding in findings if not finding.harmless]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding}{' (harmless)' if finding.harmless else ''}")
        remedy = f"; `pillowd store repair {path} NEW_PATH` copies what is whole" if harmful else ""
        click.echo(f"{path}: {len(harmful)} problems{remedy}" if harmful else f"{path}: whole")
    return Exit.FAILED if harmful else Exit.OK


@store.command()
@click.argument("path", type=_PATH)
@click.argument("into", type=_PATH)
@json_option
def repair(path: Path, into: Path, as_json: bool) -> None:
    """Copies every whole line of the store at PATH into a new one, INTO."""
    done = checkpoints.repair(path, into)
    if as_json:
        print_json({"kept": done.kept, "findings": [asdict(finding) for finding in done.findings]})
        return
    for finding in done.findings:
        click.echo(str(finding))
    click.echo(
        f"{into}: {done.kept} entries kept. Stop the daemon and put it in the place of {path} to use it"
    )
