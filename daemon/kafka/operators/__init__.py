"""Operators' requests for pillows that several daemons share."""
