"""The tests' CouchDB: a server that answers as Apache CouchDB 3.5.0 does.

It replaced a server over PouchDB, which keeps numbers as doubles and has revisions of its own. This one keeps
documents as JSON texts, has CouchDB's revision trees and hashes, and needs only Python. It answers all
scenarios of `tests/servers/recordings`; `tests/integration/test_recordings.py` proves it.

`failpoints` makes it fail as nodes and proxies fail.

It differs from a real one in these points:

* `n` is 1: a write has reached all copies, `w` and `r` are ignored, a fault of a copy is a failpoint.
* `_compact` is done when it is answered, `_view_cleanup` does nothing, `_active_tasks` is always empty.
* The bodies of old revisions are dropped after 100 edits; CouchDB drops them whenever it compacts.
* Views are computed for each request and know the built-in reductions only; texts are in the order of ICU as
  far as Latin letters go. `_find` reads all documents, its bookmarks mean nothing, and an index is only a
  design document.
* `_replicate`, `_replicator`, `_reshard`, `_search`, `_nouveau`, `_show`, `_list`, `_update`, `_rewrite`,
  `_info` of a design document, `_stats`, `_system`, CORS, JWT and proxy authentication are missing.
* Settings have their effect only where `config.Config` reads them. `GET _config` shows only those that were
  set.
* Passwords are hashed with 10 iterations, which `_users` shows.
* `sizes` of a database are estimates. `git_sha`, `uuid` and `ETag`s of lists are of its own making.
* Revisions of documents that are nested more than about 1,000 levels deep have other hashes.
* Writes are in the page cache and not on the disk when they are answered.
"""
