"""Read YAML files into nodes that know their line, with includes and variables filled in."""
