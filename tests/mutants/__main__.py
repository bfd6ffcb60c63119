"""Change the modules that decide, and see whether their tests notice: `python -m tests.mutants [MODULE ...]`.

Resumable: `build/mutants/` holds the outcomes of each module, and they count until the module or its tests
change. `build/mutants.json` sums them up with the commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.mutants.modules import MODULES, ROOT, TO_KILL, find_tests
from tests.mutants.operators import make_mutants
from tests.mutants.worker import digest

FOLDER = ROOT / "build" / "mutants"
SUMMARY = ROOT / "build" / "mutants.json"
SURVIVORS = Path(__file__).with_name("survivors.toml")

Outcome = dict[str, Any]


def main() -> int:
    """Return 0 if enough mutants were noticed, and each survivor has a reason."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("modules", nargs="*", help="paths or parts of them; all by default")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--sample", type=int, help="this many of each module, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="print the survivors and run nothing")
    given = parser.parse_args()
    chosen = [
        module for module in MODULES if not given.modules or any(part in module for part in given.modules)
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    known = {module: load_outcomes(module) for module in chosen}
    if not given.list:
        with ExitStack() as stack:
            share_servers(stack, chosen)
            for module in chosen:
                run_module(module, known[module], given.parallel, given.sample, given.seed)
    return report(known)


def load_outcomes(module: str) -> dict[str, Outcome]:
    """Return what earlier runs found, if neither the module nor its tests have changed since."""
    try:
        saved = json.loads(_file_of(module).read_bytes())
    except FileNotFoundError:
        return {}
    return saved["outcomes"] if saved["digest"] == digest_of(module) else {}


def digest_of(module: str) -> str:
    """Return a digest of the module's and its tests' text."""
    text = b"".join((ROOT / name).read_bytes() for name in [module, *find_tests(module)])
    return hashlib.sha256(text).hexdigest()


def share_servers(stack: ExitStack, chosen: list[str]) -> None:
    """Start the servers that the tests need once, not once a mutant."""
    if any("postgres" in module for module in chosen) and "PILLOWD_TEST_POSTGRES_DSN" not in os.environ:
        from tests.servers.postgres import Postgres

        os.environ["PILLOWD_TEST_POSTGRES_DSN"] = stack.enter_context(Postgres()).dsn


def run_module(module: str, known: dict[str, Outcome], parallel: int, sample: int | None, seed: int) -> None:
    """Run what is not known yet, and keep each outcome."""
    names = [mutant.name for mutant in make_mutants((ROOT / module).read_text())]
    missing = [name for name in names if name not in known]
    random.Random(seed).shuffle(missing)
    missing = missing[:sample]
    print(f"{module}: {len(names)} mutants, {len(missing)} to run", flush=True)
    if not missing:
        return
    began, text = time.monotonic(), digest_of(module)
    for done, (name, outcome, seconds, line) in enumerate(_outcomes(module, missing, parallel), 1):
        known[name] = {"outcome": outcome, "seconds": seconds, "line": line}
        _file_of(module).write_text(json.dumps({"digest": text, "outcomes": known}, indent=1))
        if done % 20 == 0 or done == len(missing):
            left = (time.monotonic() - began) / done * (len(missing) - done)
            killed = sum(known[name]["outcome"] != "survived" for name in known)
            print(f"  {done}/{len(missing)}, {killed}/{len(known)} killed, {left:.0f} s to go", flush=True)


def _outcomes(module: str, names: list[str], parallel: int) -> Iterator[tuple[str, str, float, int]]:
    """Run workers side by side, each with its share; give what they find as they find it."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        workers, results = [], []
        for number in range(min(parallel, len(names))):
            wanted = folder / f"wanted{number}"
            wanted.write_text("\n".join(digest(each) for each in names[number::parallel]))
            result = folder / f"result{number}"
            result.touch()
            command = [sys.executable, "-m", "tests.mutants.worker", module, str(result), str(wanted)]
            workers.append(subprocess.Popen(command, cwd=ROOT))
            stack.callback(workers[-1].kill)
            results.append(stack.enter_context(result.open()))
        ended = False
        while not ended:
            ended = all(worker.poll() is not None for worker in workers)
            for result_lines in results:
                for line in result_lines:
                    told, outcome, seconds, number = json.loads(line)
                    if told:
                        yield told, outcome, seconds, number
                    elif outcome != "survived":
                        raise SystemExit(f"{module}: its tests fail without any change ({outcome})")
            time.sleep(0.2)


def report(known: dict[str, dict[str, Outcome]]) -> int:
    """Print and write the result. Return the exit code."""
    reasons = tomllib.loads(SURVIVORS.read_text()) if SURVIVORS.exists() else {}
    modules: dict[str, Any] = {}
    for module, outcomes in known.items():
        survivors = sorted(
            (name for name in outcomes if outcomes[name]["outcome"] == "survived"),
            key=lambda name: outcomes[name]["line"],
        )
        unexplained = [name for name in survivors if name not in reasons.get(module, {})]
        modules[module] = {
            "mutants": len(outcomes),
            "killed": len(outcomes) - len(survivors),
            "timeouts": sum(outcome["outcome"] == "timeout" for outcome in outcomes.values()),
            "survivors": survivors,
        }
        share = 100 * modules[module]["killed"] / (len(outcomes) or 1)
        print(f"{module}: {share:.0f} % of {len(outcomes)} killed")
        for name in unexplained:
            print(f"  survived, line {outcomes[name]['line']}: {name}")
        modules[module]["unexplained"] = unexplained
    total = sum(each["mutants"] for each in modules.values())
    killed = sum(each["killed"] for each in modules.values())
    summary = {"commit": read_commit(), "mutants": total, "killed": killed, "modules": modules}
    SUMMARY.write_text(json.dumps(summary, indent=1))
    print(f"{killed} of {total} mutants killed: {100 * killed / (total or 1):.1f} %, in {SUMMARY}")
    return int(killed < TO_KILL * total or any(each["unexplained"] for each in modules.values()))


def read_commit() -> str:
    """Return the commit that is checked out, marked if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _file_of(module: str) -> Path:
    return FOLDER / (module.replace("/", "-") + ".json")


if __name__ == "__main__":
    sys.exit(main())
