"""The pure steps of a pipeline: filter, trigger, transform."""
