"""Checks that run user code: functions, transports, test cases of pillows."""
