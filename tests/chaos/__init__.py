"""Faults and crashes, with an oracle that knows what every target must hold afterwards.

`python -m tests.chaos --cycles 300` (`make chaos`) runs against the real process and real servers:

* `truth`: what the source holds, known without asking it; bodies follow from (id, n).
* `writer`: creates, updates, deletes, revives, conflicts, purges; drives source and truth alike.
* `stage`: servers, proxies between every pair, and the daemon.
* `faults`: what goes wrong meanwhile; `plan`: which fault and which end a cycle has.
* `oracle`: compares every target with the truth; knows nothing of `pillowd verify`.
* `run`: cycles and checks; `score`: what was seen; `note`: the table of a run; `soak`: one long cycle.
* `mutants`: planted bugs, each of which must turn the run red.
"""
