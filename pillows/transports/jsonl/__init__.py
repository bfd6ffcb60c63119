"""Files of JSON lines as a target."""
