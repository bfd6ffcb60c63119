"""Write the reference pages that are made from the code.

`make docs` runs it. The pages are not kept in the repository, so they cannot be out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from daemon.cli.exit_codes import ExitCode
from daemon.cli.introspect import CommandPage, list_commands
from daemon.config.models import Config
from daemon.config.schema import INCLUDED, make_schema
from daemon.http.contract import Operation, load_contract, resolve
from daemon.metrics.catalogue import SECTIONS
from docs import log_events
from pillows import registry
from pillows.options import seconds_text, size_text

REFERENCE = Path(__file__).parent / "reference"
#: Definitions that are shown within others.
_INSIDE = {"ConnectionConfig", "TransportConfig", INCLUDED}

#: Exit code -> its meaning.
EXIT_CODES = {
    ExitCode.OK: "done; for `run` and `mirror`: stopped when asked to",
    ExitCode.FAILED: "failed, or interrupted; for `status --fail`: a pillow has failed",
    ExitCode.USAGE: "wrong command line, or no such pillow",
    ExitCode.DIFFERENCES: "`verify` found differences",
    ExitCode.UNREACHABLE: "the daemon, the source or a target could not be reached: try again later",
    ExitCode.CONFIG: "the configuration is wrong or missing, so a restart cannot help",
}

#: JSON's words -> ours.
_KINDS = {
    "object": "mapping",
    "array": "list",
    "string": "text",
    "null": "nothing",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}


def main() -> None:
    """Write all pages."""
    (REFERENCE / "commands.md").write_text(commands(), encoding="utf-8")
    (REFERENCE / "configuration.md").write_text(configuration(), encoding="utf-8")
    (REFERENCE / "api.md").write_text(api(), encoding="utf-8")
    (REFERENCE / "metrics.md").write_text(metrics(), encoding="utf-8")
    (REFERENCE / "log-events.md").write_text(log_events.make_page(), encoding="utf-8")
    (REFERENCE / "exit-codes.md").write_text(exit_codes(), encoding="utf-8")


def commands() -> str:
    """Return the page of all commands, as `--help` describes them."""
    return "\n".join(["# Commands", "", *(line for page in list_commands() for line in _command(page))])


def _command(page: CommandPage) -> Iterator[str]:
    name = f"pillowd {page.name}".strip()
    yield from (f"## `{name}`", "", f"    {' '.join(['pillowd', page.usage])}", "")
    for text in page.paragraphs:
        yield from (_escaped(text), "")
    if page.options:
        yield from ("| option | |", "|---|---|")
        yield from (f"| `{_cell(each.names)}` | {_cell(_escaped(each.help))} |" for each in page.options)
        yield ""


def api() -> str:
    """Return the page of every operation of the HTTP API, as `openapi.yaml` describes it."""
    contract = load_contract()
    lines = [
        "# HTTP API",
        "",
        "The daemon describes it as OpenAPI 3.1 at `/v1/openapi.json`. The read-only listener",
        "(`daemon.http`) serves what is marked *read*; the admin socket and port (`daemon.admin`) serve",
        "everything. [Operate pillowd with curl](../how-to/operate-with-curl.md) shows how to use it.",
        "",
    ]
    for tag in contract.document["tags"]:
        lines += [f"## {tag['description']}", ""]
        for operation in contract.operations.values():
            if operation.tag == tag["name"]:
                lines += _operation(operation, contract.document)
    return "\n".join(lines)


def _operation(operation: Operation, document: dict[str, Any]) -> Iterator[str]:
    raw = document["paths"][operation.path][operation.method.lower()]
    mark = "*read* " if operation.listener == "read" else ""
    described = _escaped(_flat(f"{raw['summary']} {raw.get('description', '')}"))
    yield from (f"### `{operation.method} {operation.path}`", "", f"{mark}{described}", "")
    shared = document["paths"][operation.path].get("parameters", [])
    parameters = [resolve(document, each) for each in [*shared, *raw.get("parameters", [])]]
    if parameters:
        yield from ("| parameter | in | |", "|---|---|---|")
        for each in parameters:
            meaning = _cell(_escaped(_flat(each.get("description", ""))))
            yield f"| `{each['name']}` | {each['in']} | {meaning} |"
        yield ""
    if operation.body is not None:
        names = ", ".join(f"`{name}`" for name in operation.body.get("properties", ()))
        yield from (f"Body: {names}. {_escaped(_flat(operation.body.get('description', '')))}".strip(), "")
    yield from ("| status | |", "|---|---|")
    for status, response in raw["responses"].items():
        yield f"| {status} | {_cell(_escaped(_flat(resolve(document, response)['description'])))} |"
    yield ""


def configuration() -> str:
    """Return the page of every key with its type, default and description."""
    schema = make_schema()
    lines = [
        "# Configuration",
        "",
        "All keys. `etc/pillowd.yaml` shows them in place. `pillowd check` lists a configuration's problems,",
        "and `pillowd config show` prints the settings in effect. Any value may be `${VARIABLE}`,",
        "`${VARIABLE:default}`, `${file:/path}` or `${credential:name}`.",
        "",
    ]
    definitions: dict[str, Any] = schema["$defs"]
    order = sorted(definitions, key=lambda name: (name != Config.__name__, "." in name, name))
    models = {registry.transport(name).Connection.__name__ for name in registry.transport_types()}
    for name in order:
        if name not in _INSIDE | models and not name.startswith("entry."):
            lines += _section(name, definitions[name])
    return "\n".join(lines)


def metrics() -> str:
    """Return the page of all metrics with their types, labels and meanings."""
    lines = [
        "# Metrics",
        "",
        "What `/metrics` serves. [How to watch it](../how-to/watch-with-prometheus.md): alerts, a dashboard.",
        "A page is made once a second at most: what is counted may be a second old, and states two.",
        "A label has a name of your configuration, or one of the listed values. Series are there from the",
        "beginning, with the value 0, unless their meaning says otherwise. Those that begin with `process_`",
        "are [Prometheus' own][process].",
        "",
        "[process]: https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics",
        "",
    ]
    for section, families in SECTIONS.items():
        lines += [f"## {section}", "", "| metric | type | labels | |", "|---|---|---|---|"]
        for metric in families:
            labels = ", ".join(_label(name, values) for name, values in metric.labels.items())
            lines.append(f"| `{metric.name}` | {metric.type} | {labels} | {_cell(_escaped(metric.help))} |")
        lines.append("")
    return "\n".join(lines)


def exit_codes() -> str:
    """Return the page of all exit codes."""
    lines = [
        "# Exit codes",
        "",
        "The same for every command. The reason is one line on standard error; `--debug` adds a traceback.",
        "",
        "| code | name | meaning |",
        "|--:|---|---|",
    ]
    lines += [f"| {code.value} | `{code.name}` | {EXIT_CODES[code]} |" for code in ExitCode]
    return "\n".join([*lines, "", "The unit restarts the service after every code but 78.", ""])


def _label(name: str, values: Sequence[str]) -> str:
    return f"`{name}`" + (f" ({', '.join(values)})" if values else "")


def _section(name: str, definition: dict[str, Any]) -> Iterator[str]:
    properties = definition.get("properties", {})
    if not properties:
        return
    yield from (f"## {_heading(name)}", "", _escaped(_flat(definition.get("description", ""))), "")
    yield from ("| key | type | default | |", "|---|---|---|---|")
    required = definition.get("required", ())
    for key, value in properties.items():
        default = "required" if key in required else _cell(_default(value))
        meaning = _cell(_escaped(_flat(str(_found(value, "description") or ""))))
        yield f"| `{key}` | {_cell(_type(value))} | {default} | {meaning} |"
    yield ""


def _heading(name: str) -> str:
    if name.startswith("connection."):
        return f"A connection of type `{name.partition('.')[2]}`"
    return name.removesuffix("Options").removesuffix("Config") or "The whole file"


def _type(value: dict[str, Any]) -> str:
    choices = value.get("anyOf") or value.get("oneOf")
    if choices:
        kinds = [_type(each) for each in choices if "$" not in str(each.get("pattern", ""))[:4]]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in value or "enum" in value:
        return " or ".join(f"`{each}`" for each in value.get("enum", [value.get("const")]))
    if "$ref" in value:
        return _heading(value["$ref"].rpartition("/")[2])
    return _unit(str(value.get("pattern", ""))) or _KINDS.get(value.get("type", ""), "anything")


def _unit(pattern: str) -> str | None:
    """Return the kind of a text with a unit."""
    if "(ms|s|m|h|d)" in pattern:
        return "duration"
    return "size" if "iB" in pattern else None


def _default(value: dict[str, Any]) -> str:
    default = _found(value, "default")
    kind = _type(value)
    if default is None:
        return "none"
    if isinstance(default, dict) and default:
        return "those of its keys"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float) and kind.startswith(("duration", "size")):
        text = seconds_text(default) if kind.startswith("duration") else size_text(int(default))
        return f"`{text}`"
    return f"`{default}`" if default != "" else "empty"


def _found(value: dict[str, Any], name: str) -> Any:
    """Return a keyword of a schema, or of one of its alternatives."""
    places = [value, *value.get("anyOf", ())]
    return next((each[name] for each in places if each.get(name) is not None), None)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """Escape all Markdown in a text except backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]$#{}])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
