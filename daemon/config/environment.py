"""A whole configuration in an environment variable, for containers that mount no file."""

from __future__ import annotations

from pathlib import Path

#: The variable: YAML, as in a file.
VARIABLE = "PILLOWD_CONFIG_YAML"
#: Used in place of a path for a configuration in the environment variable; messages show it.
IN_ENVIRONMENT = Path(f"${VARIABLE}")
