"""One parser under atheris (libFuzzer), which watches which branches are taken; without it, at random."""

from __future__ import annotations

import tests.patched  # noqa: F401  # isort: skip - before anything else, as in every test run

import re
import sys
from contextlib import nullcontext

from tests.fuzz.random_inputs import run_random

try:
    import atheris  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # it has no wheels for every Python
    atheris = None

#: Packages whose branches are watched: ours, and the readers of YAML and HTTP that they rely on.
WATCHED = ["checkpoints", "pillows", "daemon", "yaml", "gevent.pywsgi"]


def main() -> None:
    """Fuzz the parser that the first argument names; the others are libFuzzer's."""
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=WATCHED) if atheris else nullcontext():
        from tests.fuzz.parsers import PARSERS

    parse, seeds = PARSERS[name]
    if atheris is None:
        (seconds,) = re.findall(r"-max_total_time=(\d+)", " ".join(arguments))
        print(f"{run_random(parse, seeds, float(seconds))} inputs at random")
        return
    # To merge inputs, libFuzzer has a shell run what stands first, with other arguments.
    atheris.Setup([f"{sys.executable} -m tests.fuzz.worker {name}", *arguments], parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
