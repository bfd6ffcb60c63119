"""The commands of `pillowd`, one module for each."""
