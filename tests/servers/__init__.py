"""Real servers for tests, bench and demo, from package registries alone: no container engine is needed.

Each server is a class in a module of its own and a context manager::

    with CouchDB() as couch:            # or Postgres(), Elasticsearch(), OpenSearch(), Kafka()
        requests.get(couch.url)         # runs on 127.0.0.1, on a free port
        couch.kill()                    # SIGKILL, as a crash would
        couch.start()                   # the same data, the same port

``python -m tests.servers`` says in one line what this machine lacks and what replaces it,
``python -m tests.servers install`` fetches everything, ``python -m tests.servers start NAME`` runs one.

* ``couchdb``: answers as CouchDB 3.5 does, proven by ``recordings``; written for these tests.
* ``postgres``: PostgreSQL as installed, else from a wheel.
* ``elasticsearch``: Elasticsearch from its published jars: one node, without security.
* ``opensearch``: OpenSearch from its published jars: one node, without security.
* ``kafka``: one Kafka broker from its published jars.
* ``tcp_proxy``: stands between a client and a server and cuts, resets, stalls or slows what passes.
* ``scripted``: plays given bytes, for what no real server can be made to do.

Nothing here may be imported by the three packages.
"""
