"""Fuzz all parsers, guided by coverage: `python -m tests.fuzz --seconds 3600`; or one: `... tests.fuzz NAME`.

Each parser runs in a process of its own, as many at a time as there are cores. Inputs that take new branches
are kept in `build/fuzz/NAME`, and with `--keep` the smallest set of them in `tests/fuzz/corpus/NAME`. An
input that breaks a promise ends its parser's process, and is kept as `build/fuzz/NAME-crash-...`.

`python -m tests.fuzz NAME FILE` parses one file, such as that one, again.
"""

from __future__ import annotations

import tests.patched  # noqa: F401  # isort: skip - before anything else, as in every test run

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.parsers import PARSERS

FOUND = Path("build/fuzz")
CORPUS = Path(__file__).parent / "corpus"
#: What a process may hold in memory; libFuzzer ends it otherwise.
LIMIT_MIB = 2048


def main() -> int:
    """Return 0 if every parser keeps its promises."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", nargs="?", choices=PARSERS)
    parser.add_argument("file", nargs="?", type=Path, help="parse this one file only")
    parser.add_argument("--seconds", type=float, default=600.0, help="of all parsers together")
    parser.add_argument("--keep", action="store_true", help="add what was found to the kept inputs")
    given = parser.parse_args()
    if given.file:
        PARSERS[given.name][0](given.file.read_bytes())
        return 0
    names = [given.name] if given.name else list(PARSERS)
    processes = min(len(names), os.cpu_count() or 1)
    seconds = given.seconds * processes / len(names)
    with ThreadPoolExecutor(processes) as pool:
        codes = dict(zip(names, pool.map(lambda name: _run(name, seconds), names), strict=True))
    for name in names if given.keep else ():
        keep(name)
    print(
        *(f"{name}: {'a promise is broken, see above' if code else 'ok'}" for name, code in codes.items()),
        sep="\n",
    )
    return int(any(codes.values()))


def _run(name: str, seconds: float) -> int:
    """Fuzz one parser in a process of its own; return the exit code."""
    print(f"{name}: {seconds:.0f} s", flush=True)
    (FOUND / name).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(PARSERS[name][1]):
        (FOUND / name / f"seed-{number}").write_bytes(seed)
    return _fuzz(name, f"-max_total_time={seconds:.0f}", str(FOUND / name), *_kept(name))


def keep(name: str) -> None:
    """Add the smallest set of inputs that takes all branches which the kept ones do not take.

    Raises:
        RuntimeError: nothing is kept, so libFuzzer could not merge.
    """
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    _fuzz(name, "-merge=1", str(CORPUS / name), str(FOUND / name))
    if not any((CORPUS / name).iterdir()):
        raise RuntimeError(f"kept no input of {name}, see {FOUND / name}.log")


def _kept(name: str) -> list[str]:
    return [str(CORPUS / name)] if (CORPUS / name).exists() else []


def _fuzz(name: str, *arguments: str) -> int:
    limits = ["-timeout=30", f"-rss_limit_mb={LIMIT_MIB}", "-max_len=4096", "-print_final_stats=1"]
    prefix = f"-artifact_prefix={FOUND / name}-"
    log = FOUND / f"{name}.log"
    with log.open("w") as file:
        code = subprocess.call(
            [sys.executable, "-m", "tests.fuzz.worker", name, *limits, prefix, *arguments],
            stdout=file,
            stderr=file,
        )
    if code:
        print(log.read_text(errors="replace")[-3000:], flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
