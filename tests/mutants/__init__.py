"""Mutation testing of the modules that decide: `make mutants`.

Each mutant is a small change of one module, and the tests of that module must fail for it. A mutant for
which they pass is a *survivor*: list it with the reason in `survivors.toml`, or write a test that notices it.

The runner is our own. mutmut 3 replaces functions by trampolines and does not reach module-level code and
decorated functions; cosmic-ray starts a process for each mutant, and most of these tests take less time than
that. This one forks a process that has imported all libraries already, and imports the changed module there.
"""
