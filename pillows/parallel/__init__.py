"""Work in several processes: one coordinator, worker processes with connections of their own.

There are two queues: of tasks that workers take, and of results that they have done, in any order. A worker
is a program of its own (exec, never fork), so that it shares neither a connection nor memory with the
coordinator.
"""

from __future__ import annotations
