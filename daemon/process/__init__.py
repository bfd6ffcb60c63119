"""The process and its surroundings: signals, systemd, memory, failpoints."""
