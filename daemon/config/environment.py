"""A whole configuration in an environment variable, for containers that mount no file."""

from __future__ import annotations

from pathlib import Path

#: The variable: YAML, as in a file.
VARIABLE = "PILLOWD_CONFIG_YAML"
#: Stands for the variable wherever the path of a configuration does; messages show it.
IN_ENVIRONMENT = Path(f"${VARIABLE}")
