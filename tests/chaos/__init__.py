"""Faults and crashes, with an oracle that knows what every target must hold afterwards.

`python -m tests.chaos --cycles 300` (`make chaos`) runs against the real process and real servers:

* `truth`: the documents of the source, known without asking it; a body follows from the id and the number of
  the write.
* `writer`: creates, updates, deletes, revives and purges documents, and creates conflicts, in source and
  truth alike.
* `stage`: servers, proxies between every pair, and the daemon.
* `faults`: faults of network, servers and machine; `ends`: ways to end the daemon; `plan`: draws a fault and
  an end for each cycle.
* `oracle`: compares every target with the truth; knows nothing of `pillowd verify`.
* `run`: cycles and checks; `score`: counts and times of a run; `note`: its table; `soak`: one long cycle.
* `shim`: the daemon with a disk that loses unsynced data; `replays`: counts documents that were written
  again.
* `mutants`: planted bugs, each of which must turn the run red.
"""
