"""The HTTP API, described by `openapi.yaml`; routes, checks and documentation are made from that file.

How to add an operation:

1. Describe it in `openapi.yaml`: path, method, `operationId`, one tag, `x-listener`, parameters, body and
   answers. With `x-listener: read`, the read-only listener serves it too; with `admin`, only the others do.
   `x-stream: true` allows an answer of several minutes, from a separate pool of connections. `x-headers:
   [Accept]` passes request headers that OpenAPI does not allow as parameters. `x-actor: true` passes the
   client as `by`, an `Actor`. `x-act: true` is for work that takes longer than a request: the handler gets
   `act` and calls `api.operations.start(act, work)`, which ends the act in the audit log.
2. Write the handler: a public function in `routes/TAG.py` (one module for each tag) whose name is the
   `operationId`. It is called as `handler(api, **arguments)`. `api` is the `ControlApi`. The arguments are
   the given parameters (`If-Match` becomes `if_match`), and `body` if the file declares one. They match
   the schemas of the file, so the handler checks only their meaning.
3. It returns a JSON value (status 200), or an `Answer` with another status, headers, text, or an iterator of
   bytes for a stream. Its errors (`daemon.errors`) become problem documents. It reads from memory, for
   example `api.snapshots`: no request may cause another one to CouchDB or a target.
4. Give `ControlApi` an attribute for anything else that the handler needs, and set it in `daemon/serving.py`.

If an operation has no handler, or a public function in `routes/` no operation, the daemon does not start and
a unit test fails. Each operation other than GET, a refused one included, is written to the audit log before
and after. `dispatch.carry_out` calls an operation without HTTP: the command does so on the files of a stopped
daemon.

This package imports neither Flask nor the server before a listener opens.
"""

from __future__ import annotations
