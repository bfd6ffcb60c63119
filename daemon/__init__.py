"""The process around the pillows: configuration, supervision, signals, the command."""
