"""Documents that could not be delivered, and where user code failed."""
