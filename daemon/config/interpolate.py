"""Fills `${...}` in parsed scalars from the environment, from files and from systemd's credentials.

    ${VAR}              the environment variable; missing is a mistake
    ${VAR:default}      the same, with a default (up to the next `}`, as it stands)
    ${file:/path}       the content of a file, without the newline at its end
    ${credential:name}  the same of $CREDENTIALS_DIRECTORY/name (systemd's LoadCredential=)
    $${                 a plain `${`

It works on values after YAML was parsed, never on text, so no value can change the structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from daemon.config.errors import Mistake, Path
from daemon.config.yaml_nodes import Node
from pillows.suggest import find_similar

#: A secret or a certificate; more is a wrong path such as /dev/zero.
MAX_FILE_BYTES = 1_000_000
#: Shorter texts are not blanked out of messages: they would tear words apart.
_MIN_SECRET = 4
_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(r"(?i)pass|secret|token|key|credential|pwd|dsn")


class _MissingError(Exception):
    """Something that `${...}` names is not there; args are the message and the remedy."""


@dataclass(slots=True, kw_only=True)
class Interpolator:
    """Fills the scalars of one file's tree.

    Attributes:
        environ: the environment.
        folder: what relative paths in `${file:...}` start from.
        mistakes: what could not be filled.
        secrets: every text that came from a file or a credential.
    """

    environ: Mapping[str, str]
    folder: FilePath
    mistakes: list[Mistake] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def fill(self, node: Node, path: Path = ()) -> Node:
        """The same tree with every scalar filled; what failed is marked `broken`."""
        if isinstance(node.value, dict):
            return replace(node, value={k: self.fill(n, (*path, k)) for k, n in node.value.items()})
        if isinstance(node.value, list):
            return replace(node, value=[self.fill(n, (*path, i)) for i, n in enumerate(node.value)])
        if not isinstance(node.value, str) or "${" not in node.value:
            return node
        try:
            return replace(node, value=self._text(node.value), written=node.value)
        except _MissingError as error:
            message, remedy = error.args
            self.mistakes.append(node.mistake(path, message, remedy))
            return replace(node, written=node.value, broken=True)

    def _text(self, text: str) -> str:
        return _TOKEN.sub(self._one, text)

    def _one(self, match: re.Match[str]) -> str:
        inner = match.group(1)
        if match.group(0) == "$${":
            return "${"
        if inner is None:
            raise _MissingError("`${` is not closed", "write `${NAME}`, or `$${` for a plain `${`")
        name, colon, rest = inner.partition(":")
        if "${" in rest:
            raise _MissingError("`${...}` stands inside `${...}`", "use plain text as the default")
        if colon and name == "file":
            return self._secret(self.folder / rest, inner)
        if colon and name == "credential":
            return self._credential(rest)
        return self._variable(name, rest if colon else None)

    def _variable(self, name: str, default: str | None) -> str:
        if not _NAME.fullmatch(name):
            remedy = "write `${NAME}`, `${NAME:default}`, `${file:/path}`, `${credential:name}`, or `$${`"
            raise _MissingError(f"`${{{name}}}` names no variable", remedy)
        if name in self.environ:
            return self.environ[name]
        if default is None:
            raise _MissingError(f"the environment variable {name} is not set", self._similar(name))
        if default.startswith("-"):
            raise _MissingError(
                "the default begins with `-`", f"write `${{{name}:{default[1:]}}}`, without it"
            )
        return default

    def _similar(self, name: str) -> str:
        similar = find_similar(name, self.environ, cutoff=0.75)
        otherwise = f"set it, or give a default: `${{{name}:default}}`"
        return f"did you mean `${{{similar}}}`? Otherwise {otherwise}" if similar else otherwise

    def _credential(self, name: str) -> str:
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            remedy = (
                f"add `LoadCredential={name}:/path` to the unit, or set CREDENTIALS_DIRECTORY to a folder"
            )
            raise _MissingError(f"there is no credential {name}: CREDENTIALS_DIRECTORY is not set", remedy)
        if not name or "/" in name or name in (".", ".."):
            raise _MissingError(f"{name!r} is no name of a credential", "write `${credential:name}`")
        return self._secret(FilePath(folder) / name, f"credential:{name}")

    def _secret(self, path: FilePath, what: str) -> str:
        try:
            text = _content(path).decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise _MissingError(f"`${{{what}}}` is no UTF-8 text", "store it as UTF-8") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            remedy = f"create {path}, readable for the user that pillowd runs as"
            raise _MissingError(f"`${{{what}}}` cannot be read: {reason}", remedy) from error
        if len(text) >= _MIN_SECRET:
            self.secrets.add(text)
        return text


def _content(path: FilePath) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return content


def escaped(text: str) -> str:
    """The text as it must be written to be read as itself."""
    return text.replace("${", "$${")


def holds_secret(written: str) -> bool:
    """Whether an interpolated scalar takes a file, a credential, or a variable that sounds like a secret."""
    return any(_is_secret(inner) for inner in _tokens(written))


def shown(written: str) -> str | None:
    """An interpolated scalar as it was written, if that gives nothing away: it is nothing but `${...}`."""
    tokens = list(_TOKEN.finditer(written))
    bare = "".join(match.group(0) for match in tokens) == written
    return written if bare and not any(_has_default(match.group(1) or "") for match in tokens) else None


def _tokens(written: str) -> Iterator[str]:
    return (match.group(1) for match in _TOKEN.finditer(written) if match.group(1))


def _is_secret(inner: str) -> bool:
    name, colon, _ = inner.partition(":")
    return bool(colon and name in ("file", "credential")) or bool(_SECRET_NAME.search(name))


def _has_default(inner: str) -> bool:
    name, colon, _ = inner.partition(":")
    return bool(colon) and name not in ("file", "credential")
