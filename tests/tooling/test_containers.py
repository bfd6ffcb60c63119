"""Dockerfile and docker-compose.yml, where no engine can run them: all that they name is there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from gevent import subprocess

from daemon.cli.main import pillowd
from daemon.config.environment import IN_ENVIRONMENT
from daemon.config.listeners import HttpOptions
from daemon.config.load import load
from daemon.http.contract import load_contract
from tests.servers.scripted import ScriptedServer, json_reply

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NAMES = ("COUCHDB_USER", "COUCHDB_PASSWORD", "ELASTIC_PASSWORD", "POSTGRES_PASSWORD")
#: Each compose file, and the services of its configuration.
FILES = {
    "docker-compose.yml": {"couchdb", "postgres", "elasticsearch"},
    "docker-compose.opensearch.yml": {"couchdb", "opensearch"},
    "docker-compose.kafka.yml": {"couchdb", "postgres", "kafka"},
}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def values(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def understood(words: list[str]) -> None:
    """Parses a command of ours, as click does, without running it."""
    name, *rest = words
    command = pillowd.get_command(pillowd.make_context("pillowd", [name]), name)
    assert command is not None, name
    command.make_context(name, rest)


# --- Dockerfile


def test_it_has_two_stages_and_the_last_one_builds_nothing():
    froms = [n for n, (word, _) in enumerate(instructions()) if word == "FROM"]

    assert len(froms) == 2
    assert "AS build" in instructions()[froms[0]][1]
    assert [rest for word, rest in instructions()[froms[1] :] if word == "RUN" and "pip" in rest] == []


def test_its_images_are_pinned_by_one_digest():
    images = {rest.split()[0] for rest in values("FROM")}

    assert len(images) == 1
    assert re.fullmatch(r"python:3\.13-slim@sha256:[0-9a-f]{64}", images.pop())


def test_packages_come_from_the_lock_files_alone():
    installs = [
        line for rest in values("RUN") for line in rest.split("&&") if re.search(r"pip (install|wheel)", line)
    ]

    assert len(installs) == 4
    assert all("--require-hashes -r " in line or "--no-deps " in line for line in installs), installs
    assert [line for line in installs if "pip wheel" in line and "--no-build-isolation" not in line] == []


def test_the_builder_says_which_version_and_commit_it_is():
    given = {rest.partition("=")[0] for rest in values("ARG")}
    (line,) = re.findall(r"(?m)^\tdocker build (.*)$", (ROOT / "Makefile").read_text())

    assert set(re.findall(r"--build-arg ([A-Z]+)=", line)) == {"VERSION", "COMMIT"} <= given
    (edited,) = re.findall(r's/\^(BUILT_FROM = )\\"\\"\$/', DOCKERFILE)
    assert f'\n{edited}""\n' in (ROOT / "daemon" / "commit.py").read_text()


def test_everything_that_is_copied_is_there_and_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [rest.split()[:-1] for rest in values("COPY") if not rest.startswith("--from")]

    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists(), path
        assert path in allowed, path


def test_all_that_the_wheel_needs_is_copied():
    packages = re.search(r"packages = (\[.*\])", (ROOT / "pyproject.toml").read_text())
    copied = {path for rest in values("COPY") for path in rest.split()}

    assert packages is not None
    assert {*json.loads(packages[1]), "pillowd.py", "README.md", "LICENSE", "pyproject.toml"} <= copied


def test_it_is_not_run_by_root():
    (user,) = values("USER")
    made = " ".join(values("RUN"))

    assert user == "10001:10001"
    assert "--uid 10001" in made
    assert "--gid 10001" in made


def test_its_commands_exist(monkeypatch):
    monkeypatch.setenv("PILLOWD_CONFIG", "/etc/pillowd/pillowd.yaml")
    (command,), (health,) = values("CMD"), values("HEALTHCHECK")
    assert json.loads(values("ENTRYPOINT")[0]) == ["pillowd"]

    understood(json.loads(command))
    program, option, script = json.loads(health.partition("CMD")[2])
    assert (program, option) == ("python", "-c")
    host, port = str(HttpOptions().listen).split(":")
    assert f"HTTPConnection('{host}', {port}" in script
    assert "'/livez'" in script
    assert "get_livez" in load_contract().operations


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_its_health_is_asked_past_proxies(status: int, code: int) -> None:
    """Most containers of a network with a proxy have its address in their environment."""
    script = json.loads(values("HEALTHCHECK")[0].partition("CMD")[2])[2]
    with ScriptedServer() as server:
        server.on("GET", "/livez", lambda _: json_reply({}, status))
        environ = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
        command = [sys.executable, "-c", script.replace("9147", str(server.address[1]))]
        assert subprocess.run(command, env=environ, check=False, timeout=60).returncode == code


def test_a_configuration_in_a_variable_is_valid_as_the_page_shows_it():
    page = (ROOT / "docs" / "how-to" / "run-in-containers.md").read_text()
    (shown,) = re.findall(r"```yaml\n(services:.*?)```", page, re.DOTALL)
    variable = yaml.safe_load(shown)["services"]["pillowd"]["environment"]["PILLOWD_CONFIG_YAML"]
    environ = {"PILLOWD_CONFIG_YAML": variable.replace("$$", "$"), "COUCHDB_PASSWORD": "s3cret-x"}
    assert list(load(IN_ENVIRONMENT, environ).pillows) == ["cases"]


def test_state_and_socket_are_where_it_may_write():
    environ = dict(pair.split("=", 1) for pair in shlex.split(values("ENV")[0]))

    assert environ["STATE_DIRECTORY"] in json.loads(values("VOLUME")[0])
    assert f"{environ['RUNTIME_DIRECTORY']}:uid=10001" in " ".join(SERVICES["pillowd"]["tmpfs"])


# --- compose files


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def compose(file: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return read


def test_the_services_are_the_official_images_with_a_version(file, compose):
    images = {name: service["image"] for name, service in compose["services"].items()}
    ours = [images.pop(name) for name in list(images) if name.startswith("pillowd")]

    assert all(image.startswith("pillowd") for image in ours)
    assert {image.partition(":")[0].rpartition("/")[2] for image in images.values()} >= FILES[file]
    assert all(re.search(r":\d", image) for image in images.values())


def test_only_this_machine_reaches_a_port(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]

    assert ports == ["127.0.0.1:5984:5984"]


def test_no_password_is_in_it_and_a_missing_one_is_said(file, compose):
    text = (ROOT / file).read_text()
    named = re.findall(r"\$\{([A-Z_]+)([^}]*)\}", text)

    assert {name for name, _ in named} <= set(NAMES)
    assert all(rest == f":?set {name} in .env" for name, rest in named)
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${")


def test_every_mount_is_there_and_every_volume_declared(compose):
    for service in compose["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_everything_waits_for_what_it_needs_to_be_healthy(compose):
    for service in compose["services"].values():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in compose["services"][other]


def test_the_container_can_write_to_nothing_but_its_state(compose):
    ours = compose["services"]["pillowd"]

    assert ours["read_only"] is True
    assert ours["cap_drop"] == ["ALL"]
    assert [mount for mount in ours["volumes"] if not mount.endswith(":ro")] == [
        "pillowd-state:/var/lib/pillowd"
    ]
    assert int(ours["stop_grace_period"].removesuffix("s")) > 30  # daemon.shutdown_timeout


def test_its_configuration_is_valid_and_names_the_services(file, compose):
    (mount,) = [
        each for each in compose["services"]["pillowd"]["volumes"] if each.endswith("pillowd.yaml:ro")
    ]
    environ = dict.fromkeys(compose["services"]["pillowd"]["environment"], "s3cret-x")

    config = load(ROOT / mount.split(":")[0], environ)

    text = (ROOT / mount.split(":")[0]).read_text()
    assert set(re.findall(r"""(?://|@|servers: \[")([a-z]+)[:/]""", text)) == FILES[file]
    (pillow,) = {config.pillows[name].source.database for name in config.pillows}
    assert f" {pillow}; do" in compose["services"]["databases"]["command"][0]


@pytest.mark.parametrize(
    ("server", "library"), [("opensearch", "opensearch-py"), ("kafka", "confluent-kafka")]
)
def test_the_image_for_a_server_has_its_client(compose, server, library):
    (wanted,) = [each for each in values("ARG") if each.startswith("REQUIREMENTS=")]
    name = compose["services"]["pillowd"]["build"]
    name = wanted.partition("=")[2] if name == "." else name["args"]["REQUIREMENTS"]

    assert (f"{library}==" in (ROOT / name).read_text()) == (server in compose["services"])


def test_each_daemon_that_shares_pillows_has_a_state_of_its_own():
    read = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
    ours = [service for name, service in read["services"].items() if name.startswith("pillowd")]
    states = {mount for service in ours for mount in service["volumes"] if not mount.endswith(":ro")}

    assert len(ours) == len(states) == 3
    assert all(mount.endswith(":/var/lib/pillowd") for mount in states)


def test_the_pods_keep_their_state_and_may_write_to_nothing_else():
    path = ROOT / "etc" / "kubernetes" / "pillowd-kafka.yaml"
    daemons, _ = yaml.safe_load_all(path.read_text())
    pods = daemons["spec"]["template"]["spec"]
    (container,) = pods["containers"]

    assert daemons["kind"] == "StatefulSet"
    assert [each["metadata"]["name"] for each in daemons["spec"]["volumeClaimTemplates"]] == ["state"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "state", "mountPath": "/var/lib/pillowd"} in container["volumeMounts"]
    assert pods["terminationGracePeriodSeconds"] > 30  # daemon.shutdown_timeout
    (named,) = re.findall(r"from-file=pillowd.yaml=(\S+)", path.read_text())
    assert (ROOT / named).exists()
