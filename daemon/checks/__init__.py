"""Checks that run user code: functions, transports and the tests of pillows."""
