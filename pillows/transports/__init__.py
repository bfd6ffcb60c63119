"""Where rows go: one file per transport."""
