"""Fill `${...}` in parsed scalars from the environment, files and systemd's credentials.

    ${VAR}              the environment variable; it must be set
    ${VAR:default}      the same, with a default (up to the next `}`, taken literally)
    ${file:/path}       the content of a file, without the newline at its end
    ${credential:name}  the same for $CREDENTIALS_DIRECTORY/name (systemd's LoadCredential=)
    $${                 a plain `${`

Only parsed values are filled, never the YAML text, so a value cannot change the structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath

from msgspec import Struct, field
from msgspec.structs import replace

from daemon.config.problems import KeyPath, ProblemCollector
from daemon.config.yaml.nodes import Node
from pillows.suggest import find_similar

#: Largest file that `${file:...}` reads: secrets and certificates are smaller, and /dev/zero is not.
MAX_FILE_BYTES = 1_000_000
_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Prefixes of `${...}` that read a file.
_SOURCES = ("file", "credential")
_SECRET_NAME = re.compile(r"(?i)pass|secret|token|key|credential|pwd|dsn")


class _UnfillableError(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        self.message, self.remedy = message, remedy


class Interpolated(Struct, frozen=True, kw_only=True):
    """A tree whose scalars are filled.

    Attributes:
        node: the root; a scalar that could not be filled is marked `broken`.
        secrets: every text that came from a file or a credential.
    """

    node: Node
    secrets: frozenset[str] = frozenset()


def interpolate(
    root: Node, environ: Mapping[str, str], folder: FilePath
) -> tuple[Interpolated, ProblemCollector]:
    """Fill every scalar of one file's tree.

    Args:
        root: the tree.
        environ: the environment.
        folder: the start of relative paths in `${file:...}`.

    Returns:
        The filled tree, and the problems.
    """
    filler = _Filler(environ=environ, folder=folder)
    node = filler.fill(root, ())
    return Interpolated(node=node, secrets=frozenset(filler.secrets)), filler.problems


class _Filler(Struct, kw_only=True):
    environ: Mapping[str, str]
    folder: FilePath
    problems: ProblemCollector = field(default_factory=ProblemCollector)
    secrets: set[str] = field(default_factory=set)

    def fill(self, node: Node, path: KeyPath) -> Node:
        if isinstance(node.value, dict):
            return replace(node, value={k: self.fill(n, (*path, k)) for k, n in node.value.items()})
        if isinstance(node.value, list):
            return replace(node, value=[self.fill(n, (*path, i)) for i, n in enumerate(node.value)])
        if not isinstance(node.value, str) or "${" not in node.value:
            return node
        try:
            value = _TOKEN.sub(self._fill_token, node.value)
        except _UnfillableError as error:
            self.problems.add(node.shown_at, path, error.message, error.remedy)
            return replace(node, written=node.value, broken=True)
        return replace(node, value=value, written=node.value)

    def _fill_token(self, match: re.Match[str]) -> str:
        inner = match.group(1)
        if match.group(0) == "$${":
            return "${"
        if inner is None:
            raise _UnfillableError("`${` is not closed", "write `${NAME}`, or `$${` for a plain `${`")
        name, colon, rest = inner.partition(":")
        if "${" in rest:
            raise _UnfillableError("`${...}` is inside another `${...}`", "use plain text as the default")
        if colon and name == "file":
            return self._read_secret(self.folder / rest, inner)
        if colon and name == "credential":
            return self._credential(rest)
        return self._variable(name, rest if colon else None)

    def _variable(self, name: str, default: str | None) -> str:
        if not _NAME.fullmatch(name):
            remedy = "write `${NAME}`, `${NAME:default}`, `${file:/path}`, `${credential:name}`, or `$${`"
            raise _UnfillableError(f"`${{{name}}}` does not name a variable", remedy)
        if name in self.environ:
            return self.environ[name]
        if default is None:
            raise _UnfillableError(
                f"the environment variable {name} is not set", self._suggest_variable(name)
            )
        if default.startswith("-"):
            raise _UnfillableError(
                "the default begins with `-`", f"write `${{{name}:{default[1:]}}}`, without it"
            )
        return default

    def _suggest_variable(self, name: str) -> str:
        similar = find_similar(name, self.environ, cutoff=0.75)
        otherwise = f"set it, or give a default: `${{{name}:default}}`"
        return f"did you mean `${{{similar}}}`? Otherwise {otherwise}" if similar else otherwise

    def _credential(self, name: str) -> str:
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            remedy = (
                f"add `LoadCredential={name}:/path` to the unit, or set CREDENTIALS_DIRECTORY to a folder"
            )
            raise _UnfillableError(f"there is no credential {name}: CREDENTIALS_DIRECTORY is not set", remedy)
        if not name or "/" in name or name in (".", ".."):
            raise _UnfillableError(f"{name!r} is not a valid credential name", "write `${credential:name}`")
        return self._read_secret(FilePath(folder) / name, f"credential:{name}")

    def _read_secret(self, path: FilePath, what: str) -> str:
        try:
            text = _read_bounded(path).decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise _UnfillableError(f"`${{{what}}}` is not UTF-8 text", "store it as UTF-8") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            remedy = f"create {path}, readable for the user that pillowd runs as"
            raise _UnfillableError(f"`${{{what}}}` cannot be read: {reason}", remedy) from error
        self.secrets.add(text)
        return text


def _read_bounded(path: FilePath) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return content


def escape(text: str) -> str:
    """Return the text to write for a scalar that is to be read as `text`."""
    return text.replace("${", "$${")


def list_files(written: str, folder: FilePath, credentials: str) -> list[FilePath]:
    """Return the files that an interpolated scalar is read from.

    Args:
        written: the scalar as it was written.
        folder: the start of relative paths in `${file:...}`.
        credentials: the folder of `${credential:...}`.
    """
    tokens = (match.group(1).partition(":") for match in _TOKEN.finditer(written) if match.group(1))
    folders = dict(zip(_SOURCES, (folder, FilePath(credentials)), strict=True))
    return [folders[source] / rest for source, colon, rest in tokens if colon and source in folders]


def holds_secret(written: str) -> bool:
    """Return whether an interpolated scalar takes a file, a credential, or a variable named like a secret."""
    found = (match.group(1) for match in _TOKEN.finditer(written) if match.group(1))
    return any(_is_secret(inner) for inner in found)


def get_public_text(written: str) -> str | None:
    """Return an interpolated scalar as it was written; None unless it is `${...}` without any default."""
    tokens = list(_TOKEN.finditer(written))
    bare = "".join(match.group(0) for match in tokens) == written
    return written if bare and not any(_has_default(match.group(1) or "") for match in tokens) else None


def _is_secret(inner: str) -> bool:
    name, colon, _ = inner.partition(":")
    return bool(colon and name in _SOURCES) or bool(_SECRET_NAME.search(name))


def _has_default(inner: str) -> bool:
    name, colon, _ = inner.partition(":")
    return bool(colon) and name not in _SOURCES
