"""Imports go one way (the contracts in pyproject.toml), and have no side effects."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Package -> the packages of ours that it imports, itself included.
LAYERS = {
    "checkpoints": ("checkpoints",),
    "pillows": ("checkpoints", "pillows"),
    "daemon": ("checkpoints", "pillows", "daemon"),
}
OURS = {*LAYERS, "pillowd", "tests", "bench"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    return subprocess.run(
        [*command, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_contracts_of_pyproject_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


#: Module -> an import that it must not have; all of them together break every contract.
PLANTED = {
    "checkpoints.errors": "pillows.errors",
    "checkpoints.seq": "yaml",
    "pillows.couch.client": "pillows.feed.base",
    "pillows.feed.base": "pillows.runtime.status",
    "pillows.runtime.tail": "pillows.feed.couch_feed",
    "pillows.transports.base": "pillows.delivery.batcher",
    "pillows.kafka.topics": "pillows.feed.base",
    "pillows.change_topics.names": "pillows.delivery.batcher",
    "pillows.databases.names": "pillows.registry",
    "pillows.retry.backoff": "pillows.standalone.bulk_models",
    "pillows.stages.filters": "gevent",
    "daemon.config.models": "daemon.app",
    "daemon.app": "tests.servers",
    "daemon.control.paging": "daemon.http.messages",
    "daemon.http.routes.audit": "flask",
}
UNLISTED = "daemon.unheard_of"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the report on a copy in which all contracts are broken."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in ("checkpoints", "pillows", "daemon", "tests", "bench"):
        shutil.copytree(ROOT / package, copy / package, ignore=lambda _, names: skipped(names))
    for module, imported in {**PLANTED, UNLISTED: "json"}.items():
        with (copy / f"{module.replace('.', '/')}.py").open("a") as file:
            file.write(f"\nimport {imported}\n")
    done = lint_imports(copy)
    assert done.returncode == 1
    return done.stdout


@pytest.mark.parametrize(("module", "imported"), PLANTED.items())
def test_a_broken_contract_is_reported(module: str, imported: str, report: str) -> None:
    assert f"{module} -> {imported} (l." in report


def test_every_contract_can_be_broken_and_no_module_is_left_out(report: str) -> None:
    assert "Contracts: 0 kept," in report
    assert f"- {UNLISTED}\n" in report


def skipped(names: list[str]) -> list[str]:
    return [name for name in names if "." in name and not name.endswith(".py")]


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


@pytest.mark.parametrize("package", LAYERS)
def test_importing_a_package_has_no_side_effects(package: str) -> None:
    assert side_effects([package], foreign_modules([ROOT / package / "__init__.py"])) == {}


@pytest.mark.parametrize("package", LAYERS)
def test_importing_every_module_has_no_side_effects(package: str) -> None:
    paths = modules(package)
    foreign = foreign_modules([path for each in LAYERS[package] for path in modules(each)])
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
