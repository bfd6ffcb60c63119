"""Where rows go: one module or folder for each transport."""
