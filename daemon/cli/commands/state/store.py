"""`pillowd store`: check a store on disk, and copy its intact entries."""

from __future__ import annotations

from pathlib import Path

import click
from msgspec.structs import asdict

import checkpoints
from daemon.cli.exit_codes import ExitCode
from daemon.cli.options import json_option
from daemon.cli.output import echo, print_json

_PATH = click.Path(path_type=Path)


@click.group()
def store() -> None:
    """Check and repair stores on disk, such as checkpoints and dead letters.

    PATH is a store's directory. It is never changed, so a daemon may have it open.
    """


@store.command()
@click.argument("path", type=_PATH)
@json_option
def check(path: Path, as_json: bool) -> ExitCode:
    """List the problems of the store at PATH, by file and line."""
    findings = checkpoints.check(path)
    harmful = [finding for finding in findings if not finding.harmless]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            echo(f"{finding}{' (harmless)' if finding.harmless else ''}")
        remedy = (
            f". Remedy: copy its intact entries with `pillowd store repair {path} NEW_PATH`"
            if harmful
            else ""
        )
        echo(f"{path}: {len(harmful)} problems{remedy}" if harmful else f"{path}: whole")
    return ExitCode.FAILED if harmful else ExitCode.OK


@store.command()
@click.argument("path", type=_PATH)
@click.argument("into", type=_PATH)
@json_option
def repair(path: Path, into: Path, as_json: bool) -> None:
    """Copy every intact line of the store at PATH into a new store INTO."""
    done = checkpoints.repair(path, into)
    if as_json:
        print_json({"kept": done.kept, "findings": [asdict(finding) for finding in done.findings]})
        return
    for finding in done.findings:
        echo(str(finding))
    echo(f"{into}: {done.kept} entries kept. To use it, stop the daemon and move it to {path}")
