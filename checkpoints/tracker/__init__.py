"""The progress of tasks, kept in a POD."""
