"""The commands that read a configuration: `check`, `config`, `list`, `preview`."""
