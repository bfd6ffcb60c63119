"""Progress of tasks, kept in a POD."""
