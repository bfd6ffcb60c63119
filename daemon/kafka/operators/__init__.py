"""What operators ask of pillows that several daemons share."""
