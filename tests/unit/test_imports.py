"""Which package may import which, and that importing does nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Package -> the packages of ours that it may import, itself included.
MAY_IMPORT = {
    "checkpoints": {"checkpoints"},
    "pillows": {"checkpoints", "pillows"},
    "daemon": {"checkpoints", "pillows", "daemon"},
}
#: What the console script and the demo need beyond that, each for its own reason.
EXCEPTIONS = {
    ("daemon/__main__.py", "pillowd"),  # looks whether this package is hidden, before anything else
}
OURS = {*MAY_IMPORT, "pillowd", "tests", "bench"}
#: Folder of `daemon` -> the folders of it that it may import. `run` is the process itself: what stands
#: in no folder, and `operations`.
DAEMON_MAY_IMPORT = {
    "config": {"config"},
    "run": {"config", "run"},
    "cli": {"config", "run", "cli"},
    "mirror": {"config", "run", "cli", "mirror"},
    "demo": {"demo"},
}
#: What everything in `pillows` may import of it, and what its folders may import beyond that. Of the source
#: the pipeline knows the contract alone, and of targets their base.
COMMON = {"clock", "couch.exception_chain", "errors", "models", "observer", "options", "retry"}
PIPELINE = {"dead_letters", "delivery", "pillow", "progress", "registry", "runtime", "stages", "standalone"}
PILLOWS_MAY_IMPORT = {
    "couch": {"couch"},
    "feed": {"couch", "feed"},
    "transports": {"couch", "transports", "stages.conversions", "stages.document_paths"},
    "": {*PIPELINE, "feed.base", "transports.base"},
    "verify": {*PIPELINE, "verify", "feed.base", "transports.base"},
}
PILLOWS_EXCEPTIONS = {
    "bulk_couch.py": {"couch.errors", "couch.client", "couch.options"},  # writes to CouchDB on its own
    "registry.py": {"transports"},  # looks what is there
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The top-level names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    wrong = {
        (str(path.relative_to(ROOT)), name)
        for path in modules(package)
        for name in imported(path)
        if name in OURS and name not in MAY_IMPORT[package]
    }
    assert wrong - EXCEPTIONS == set()


def folder(name: str) -> str:
    """The folder of `daemon` that a module stands in."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in DAEMON_MAY_IMPORT else "run"


def test_imports_within_the_daemon_go_one_way() -> None:
    """Configuration knows nobody; the process knows no command; a command knows both."""
    paths = [path for path in modules("daemon") if path.name != "__main__.py"]
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in paths
        for name in imported_from("daemon", path)
        if folder(f"daemon.{name}") not in DAEMON_MAY_IMPORT[folder(dotted(path))]
    ]
    assert wrong == []


def within(name: str, allowed: set[str]) -> bool:
    """Whether a module of `pillows` is one of these, or stands in one of these folders."""
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def test_imports_within_the_pillows_go_one_way() -> None:
    """Whoever talks to CouchDB knows nobody; a feed knows no pipeline; the pipeline knows no feed."""
    wrong = []
    for path in modules("pillows"):
        *folders, file = path.relative_to(ROOT / "pillows").parts
        home = folders[0] if folders and folders[0] in PILLOWS_MAY_IMPORT else ""
        allowed = COMMON | PILLOWS_MAY_IMPORT[home]
        names = {name for name in imported_from("pillows", path) if not within(name, allowed)}
        wrong += [(home, file, name) for name in names - PILLOWS_EXCEPTIONS.get(file, set())]
    assert wrong == []


def imported_from(package: str, path: Path) -> Iterator[str]:
    """The modules of a package that a file imports, in whatever way, by their names within it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            found = [f"{package}.{alias.name}" for alias in node.names]
        else:
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.partition(".")[2] for name in found if name.startswith(f"{package}."))


@pytest.mark.parametrize("package", ["checkpoints", "pillows"])
def test_only_the_daemon_reads_yaml_the_environment_or_sets_up_the_process(package: str) -> None:
    """Libraries never patch, never touch signals, never configure logging."""
    forbidden = ("os.environ", "os.getenv", "signal.signal", "patch_all", "basicConfig", "import yaml")
    found = [(path.name, word) for path in modules(package) for word in forbidden if word in path.read_text()]
    assert found == []


#: Runs in an interpreter of its own: loads what others wrote first, so that only ours is judged.
PROBE = """
import atexit, importlib, json, logging, signal, sys, threading, warnings
foreign, ours = json.loads(sys.argv[1])
for name in foreign:
    try:
        importlib.import_module(name)
    except ImportError:
        pass

def facts():
    monkey = sys.modules.get("gevent.monkey")
    return {
        "signals": {int(n): repr(signal.getsignal(n)) for n in signal.valid_signals() if n not in (9, 19)},
        "root handlers": len(logging.root.handlers),
        "root level": logging.root.level,
        "warnings filters": len(warnings.filters),
        "atexit": atexit._ncallbacks(),
        "patched": sorted(monkey.saved) if monkey else [],
        "threads": threading.active_count(),
        "path": list(sys.path),
    }

before = facts()
for name in ours:
    importlib.import_module(name)
after = facts()
print(json.dumps({name: [before[name], after[name]] for name in before if before[name] != after[name]}))
"""


def side_effects(ours: list[str], foreign: list[str]) -> dict[str, list[object]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([foreign, ours])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    effects: dict[str, list[object]] = json.loads(done.stdout)
    return effects


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def foreign_modules(paths: list[Path]) -> list[str]:
    """Every module of others that these files import, in full, as `package.module`."""
    names: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return sorted(name for name in names if name and name.partition(".")[0] not in OURS)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_importing_a_package_has_no_side_effects(package: str) -> None:
    assert side_effects([package], foreign_modules([ROOT / package / "__init__.py"])) == {}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_importing_every_module_has_no_side_effects(package: str) -> None:
    paths = modules(package)
    foreign = foreign_modules([path for each in MAY_IMPORT[package] for path in modules(each)])
    assert side_effects([dotted(path) for path in paths], foreign) == {}


def test_a_side_effect_would_be_seen(tmp_path: Path) -> None:
    lines = (
        "import atexit, logging",
        "logging.basicConfig()",
        "atexit.register(print)",
        "from gevent import monkey",
        "monkey.patch_queue()",
    )
    (tmp_path / "noisy.py").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([["gevent.monkey"], ["noisy"]])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(done.stdout)) == {"root handlers", "atexit", "patched"}
