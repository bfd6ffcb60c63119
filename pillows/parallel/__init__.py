"""Work in several processes: one coordinator, and workers with their own connections.

There are two queues: workers take tasks from one, and put results into the other, in any order. A worker is a
separate program (exec, never fork), so it shares neither connections nor memory with the coordinator.
"""

from __future__ import annotations
