"""Which of several daemons runs the pillows, and where their shared state is."""
