"""Format a configuration as it is in effect: with defaults, without secrets, ready to load again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import SecretStr

from daemon.config.models import Config
from daemon.config.problems import KeyPath
from daemon.config.yaml.interpolate import escape, get_public_text, holds_secret
from daemon.config.yaml.nodes import Loader, Node
from pillows.options import SecretAddress
from pillows.redaction import MASK, Redactor, find_secrets, put_at, redact_address


class _Dumper(yaml.SafeDumper):
    """Quotes text that our loader, or one of YAML 1.1, would read as another value."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the same value is written twice
        """Return True: an alias would couple values that merely happen to be equal."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds the line breaks of YAML 1.1 (NEL and the like) away outside of double quotes.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
_OURS, _YAML_1_1 = Loader.yaml_implicit_resolvers, yaml.SafeDumper.yaml_implicit_resolvers
_Dumper.yaml_implicit_resolvers = {
    first: Loader.yaml_implicit_resolvers.get(first, [])
    + yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])
    for first in {*Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def format_config(config: Config) -> str:
    """Return the configuration as YAML text.

    Every default is filled in. A secret that was written as `${...}` is shown as written; any other secret is
    masked, even as part of a URL. The text loads again, with the mask as the value of a masked secret.
    """
    return format_yaml(to_effective(config))


def format_yaml(plain: Mapping[str, Any]) -> str:
    """Return plain values as YAML text that loads as the same values."""
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def to_effective(config: Config) -> dict[str, Any]:
    """Return the values that `format_config` formats."""
    plain = config.model_dump(mode="json", by_alias=True, exclude={"include"})
    for path, secret in find_secrets(config):
        put_at(plain, path, secret)
    for name, entry in plain["connections"].items():
        plain["connections"][name] = {"type": entry["type"], **entry["options"]}
    hidden: dict[str, Any] = _hide(plain, (), config.root)
    return hidden


def _hide(value: Any, path: KeyPath, root: Node) -> Any:
    if isinstance(value, dict):
        return {key: _hide(child, (*path, key), root) for key, child in value.items()}
    if isinstance(value, list):
        return [_hide(child, (*path, index), root) for index, child in enumerate(value)]
    if not isinstance(value, str | SecretStr):
        return value
    node = _find_written(path, root)
    written = node.written if node else None
    if isinstance(value, SecretStr):
        return (written and get_public_text(written)) or escape(
            value.redacted() if isinstance(value, SecretAddress) else MASK
        )
    if written and holds_secret(written):
        return get_public_text(written) or MASK
    return escape(Redactor().redact(redact_address(value)))


def _find_written(path: KeyPath, root: Node) -> Node | None:
    """Return the node of a value; an entry without `outputs` holds the settings of its one output."""
    shorthand = path[2:3] == ("transport",) and path[4:5] == ("outputs",)
    return root.find(path) or (root.find((*path[:4], *path[6:])) if shorthand else None)
