"""Which of several daemons runs the pillows, and where the state lies that they share."""
