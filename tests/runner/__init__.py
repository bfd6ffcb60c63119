"""Runs the tests in worker processes side by side: `python -m tests`, `python -m tests.runner.proof`.

The workers collect all tests, claim them file by file in a common folder, and write what happens into a
journal each; the runner reads the journals, starts the servers that the workers share, and judges.
"""
