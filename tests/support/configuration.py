"""Valid configurations that tests change in one place."""

from __future__ import annotations

#: Tests that break one thing name its line, which counts from 1.
GOOD = """\
version: 1
daemon:
  shutdown_timeout: 30s
logging:
  format: json
connections:
  couch:
    type: couchdb
    url: https://couch.example:6984
    auth: { type: session, username: etl, password: "${COUCH_PASSWORD}" }
  lite:
    type: sqlite
    path: /var/lib/pillowd/reports.sqlite
pillows:
  cases:
    source: { connection: couch, database: cases }
    filter: { jmespath: "doc.doc_type == 'Case'" }
    transport:
      - { connection: lite, table: cases }
"""
ENVIRON = {"COUCH_PASSWORD": "correct horse"}

#: A pillow whose second transport is slow.
PACED = """\
version: 1
connections:
  couch: { type: couchdb, url: "http://127.0.0.1:5984" }
  files: { type: jsonl, folder: . }
  slow: { type: "null" }
pillows:
  cases:
    source: { connection: couch, database: cases }
    transport:
    - { connection: files, file: cases.jsonl }
    - { connection: slow, own_pace: true }
"""
