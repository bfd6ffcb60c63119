"""One `_changes` connection that several pillows read."""
