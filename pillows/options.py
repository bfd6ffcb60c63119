"""Options: validated, frozen settings that a part declares beside its code.

The daemon reads YAML and validates it against these models; the packages only ever see the values.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr

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


class Options(BaseModel):
    """Base class of options: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _measure(value: object, units: dict[str, float] | dict[str, int], examples: str) -> float:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", value.strip())):
        number, unit = match.groups()
        if unit in units:
            return float(number) * units[unit]
    raise ValueError(f"needs a number with a unit, such as {examples}")


def seconds(value: object) -> float:
    """Seconds of a duration such as `250ms`, `5s`, `10m`, `1h`, `7d`.

    Raises:
        ValueError: it is no duration; a bare number has no unit, so it is refused too.
    """
    return _measure(value, _UNITS_SECONDS, "250ms, 5s, 10m, 1h or 7d")


def size_bytes(value: object) -> int:
    """Bytes of a size such as `512KiB`, `5MiB`, `1GiB`, `5MB`.

    Raises:
        ValueError: it is no size; a bare number has no unit, so it is refused too.
    """
    return int(_measure(value, _UNITS_BYTES, "512KiB, 5MiB or 1GiB"))


#: A duration in seconds, written `250ms`, `5s`, `10m`, `1h`, `7d`.
Duration = Annotated[float, BeforeValidator(lambda v: v if isinstance(v, float) else seconds(v))]

#: A size in bytes, written `512KiB`, `5MiB`, `1GiB`.
Size = Annotated[int, BeforeValidator(size_bytes)]

#: A value that must never be shown.
Secret = SecretStr
