"""Compare targets with their source on a schedule."""
