"""Options: validated, frozen settings that a part declares beside its code.

The daemon reads YAML and validates it against these models; the packages only ever see the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from msgspec import Struct
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)

from pillows.redaction import MASK, redact_address

_UNITS_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS_BYTES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
#: A part of a path of at least 16 characters; a query or fragment.
_UNGUESSABLE = re.compile(r"(?<=[^/]/)[^/?#]{16,}|[?#].*")
_UNITS_SHOWN = {unit: _UNITS_BYTES[unit] for unit in ("B", "KiB", "MiB", "GiB")}


class Options(BaseModel):
    """Base class of options: frozen, and an unknown key is an error.

    A validator's message has the form `what is wrong; what to do`, or ends with `such as` and an example.
    """

    # Built when something is first validated: of most models, as a part of the one that they are in.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    #: Settings that no row depends on: changing one is not a changed pipeline.
    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset()
    #: Settings that are younger than the digests in use: left out of a digest while they have their default.
    NEW_IN_DIGESTS: ClassVar[frozenset[str]] = frozenset()


class Build(Struct, frozen=True, kw_only=True):
    """A build of a pillow's outputs: a rebuild fills the next one beside the live one.

    Attributes:
        number: counts the builds of a pillow, from 1.
        live: whether readers see it: only the live build has the configured names.
    """

    number: int = 1
    live: bool = True


class OutputOptions(Options):
    """Base class of a transport's `Output`: the settings of one index, table or file."""

    _build: Build = PrivateAttr(default=Build())

    #: The settings that name the output's address within its connection, the widest first. A setting
    #: that is empty is taken from the connection's setting of that name, else from the output's name.
    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ()

    @property
    def build(self) -> Build:
        """The build of the pillow that these settings are used for; no setting of its own."""
        return self._build

    def of_build(self, build: Build) -> Self:
        """Return the same settings for another build."""
        copy = self.model_copy()
        copy._build = build  # noqa: SLF001 - an own copy of this class
        return copy

    @property
    def is_per_source(self) -> bool:
        """Whether pillows on other sources may write to the same address."""
        return False

    def describe_takeover_risk(self) -> str:
        """Return the settings without which two machines must not write at the same time during a takeover.

        Empty if the output takes no older state over a newer one.
        """
        return ""

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:  # noqa: ARG002  # for those who can
        """Return the output's addresses, the same for every way to configure the same place.

        Outputs with a common address are the same place, to which only one pillow may write.

        Args:
            connection: validated settings of the server.

        Returns:
            One address for each host of a cluster; none if they cannot be known.
        """
        return frozenset()


def _measure(value: object, units: Mapping[str, float], examples: str) -> float:
    if isinstance(value, str) and (
        match := re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)", value.strip())
    ):
        number, unit = match.groups()
        if unit in units:
            return float(number) * units[unit]
    raise ValueError(f"needs a number with a unit; write {examples}")


def seconds(value: object) -> float:
    """Return the seconds of a duration such as `250ms`, `5s`, `10m`, `1h`, `7d`.

    Raises:
        ValueError: it is not a valid duration; a bare number has no unit, so it is refused too.
    """
    return _measure(value, _UNITS_SECONDS, "250ms, 5s, 10m, 1h or 7d")


def size_bytes(value: object) -> int:
    """Return the bytes of a size such as `512KiB`, `5MiB`, `1GiB`, `5MB`.

    Raises:
        ValueError: it is not a valid size; a bare number has no unit, so it is refused too.
    """
    return int(_measure(value, _UNITS_BYTES, "512KiB, 5MiB or 1GiB"))


def _unit_text(value: float, units: Mapping[str, float]) -> str:
    whole = [unit for unit, scale in units.items() if value and (value / scale).is_integer()]
    unit = max(whole or [min(units, key=units.__getitem__)], key=units.__getitem__)
    return f"{value / units[unit]:.12g}{unit}"


def seconds_text(value: float) -> str:
    """Format a duration the shortest way: 300.0 is `5m`."""
    return _unit_text(value, _UNITS_SECONDS) if value else "0s"


def size_text(value: int) -> str:
    """Format a size the shortest way: 5242880 is `5MiB`."""
    return _unit_text(value, _UNITS_SHOWN)


def _duration(value: object, info: ValidationInfo) -> float:
    # Code gives seconds; what an operator wrote must have a unit.
    if isinstance(value, float) and info.context is not WRITTEN:
        return value
    return seconds(value)


def _size(value: object, info: ValidationInfo) -> int:
    if type(value) is int and info.context is not WRITTEN:
        return value
    return size_bytes(value)


#: The validation context of values that an operator wrote.
WRITTEN: Final = {"written": True}

#: A duration in seconds, written `250ms`, `5s`, `10m`, `1h`, `7d`.
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(seconds_text, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d)$"}),
]

#: A size in bytes, written `512KiB`, `5MiB`, `1GiB`.
Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(size_text, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*([KMG]iB|[kMG]?B)$"}),
]

#: A value that must never be shown.
Secret = SecretStr


class SecretAddress(SecretStr):
    """A URL or connection string that may hold a password; everything else of it may be shown."""

    def redacted(self) -> str:
        """Return the address without its password."""
        return redact_address(self.get_secret_value())


class SecretUrl(SecretAddress):
    """The URL of a webhook. Its query, or a random part of its path, is often a password."""

    def redacted(self) -> str:
        """Return the URL without password, query and long parts of the path."""
        return _UNGUESSABLE.sub(MASK, super().redacted())
