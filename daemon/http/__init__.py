"""The HTTP API: one file says what it is (`openapi.yaml`), and everything else is made from that file.

How to add an operation:

1. Describe it in `openapi.yaml`: path, method, `operationId`, one tag, `x-door`, parameters, body, answers.
   `x-door: read` puts it on the read-only listener as well; `x-door: admin` on the admin listeners only.
   `x-stream: true` lets its answer go on for minutes, in a pool of connections of its own. `x-headers:
   [Accept]` hands over request headers that OpenAPI does not take as parameters, `x-actor: true` the `Actor`
   who asks, as `by`. `x-act: true` is for work that takes longer than a request: the handler takes `act` and
   hands it to `api.operations.start(act, work)`, which ends it in the audit log when the work is done.
2. Write the handler: a public function in `routes/TAG.py` (one module for each concern) whose name is the
   `operationId`. It is called as `handler(api, **arguments)`: `api` is the `ControlApi`, and the arguments
   are the parameters by name (`If-Match` becomes `if_match`), absent ones left out, and `body` if the file
   declares one. They are valid by the file's schemas when they arrive, so the handler checks meaning only.
3. It returns a JSON value (status 200), or an `Answer` with another status, headers, text, or an iterator of
   bytes for a stream. It raises errors of the one tree (`daemon.errors`), which become problem documents.
   It reads what is in memory: `api.snapshot` and the like. No request may cause one to CouchDB or a target.
4. What a handler needs becomes an attribute of `ControlApi`, set where the daemon builds it
   (`Daemon._serve`).

An operation without handler, or a public function there that is no operation, ends the start (and a unit
test). Each operation that is not GET is written to the audit log before and after, refused ones too.
`dispatch.carry_out` makes a call without HTTP: the command uses it on the files of a daemon that is stopped.

This package imports neither Flask nor the server before a listener opens.
"""

from __future__ import annotations
