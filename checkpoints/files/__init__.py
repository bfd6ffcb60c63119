"""Files and processes: durable replacement, blocking calls, forks."""
