// What cht-sync does, on the libraries that it uses; npm does not have cht-sync itself.
// A turn asks how much is pending, reads a thousand ids of the feed and their documents by `_all_docs`, writes them by one
// INSERT, and stores the position; each statement has a connection of its own.
//
// Usage: node cht_sync.cjs DATABASE_URL POSTGRES_URL; the login to CouchDB comes from the environment.
'use strict';

const { Agent } = require('http');
const axios = require('axios');
const { Client } = require('pg');
const PouchDB = require('pouchdb-core').plugin(require('pouchdb-adapter-http'));

const BATCH = 1000;
const COLUMNS = 5;
const TABLES = `
  create table couchdb (
    saved_timestamp timestamp, _id varchar primary key, _deleted boolean, source varchar, doc jsonb
  );
  create index on couchdb (_deleted);
  create index on couchdb (saved_timestamp);
  create table couchdb_progress (seq varchar, pending integer, updated_at timestamptz, source varchar primary key);
`;

const [url, dsn] = process.argv.slice(2);
const username = process.env.PILLOWD_BENCH_COUCHDB_USER;
const auth = username && { username, password: process.env.PILLOWD_BENCH_COUCHDB_PASSWORD };
// Without an agent, node-fetch 2 on a current Node.js sends requests to connections that it has asked to be closed.
const agent = new Agent({ keepAlive: true });
const fetch = (address, options) => PouchDB.fetch(address, { ...options, agent });
const couch = new PouchDB(url, { skip_setup: true, fetch, auth });
const source = new URL(url).pathname;

async function query(text, values) {
  const client = new Client(dsn);
  await client.connect();
  try {
    return await client.query(text, values);
  } finally {
    await client.end();
  }
}

// jsonb has no NUL.
const encode = (doc) => JSON.stringify(doc).replace(/\\+u0000/g, '');

async function write(rows) {
  const now = new Date().toISOString();
  const values = rows.flatMap((row) => [now, row.id, Boolean(row.deleted), source, encode(row.doc)]);
  const places = rows.map((_, row) => {
    const numbers = Array.from({ length: COLUMNS }, (_, column) => `$${row * COLUMNS + column + 1}`);
    return `(${numbers.join(', ')})`;
  });
  await query(
    `insert into couchdb (saved_timestamp, _id, _deleted, source, doc) values ${places.join(', ')}
     on conflict (_id) do update set saved_timestamp = excluded.saved_timestamp, _deleted = excluded._deleted,
     source = excluded.source, doc = excluded.doc`,
    values,
  );
}

async function turn() {
  const { rows } = await query('select seq from couchdb_progress where source = $1', [source]);
  const since = rows[0].seq;
  const { data } = await axios.get(`${url}/_changes`, { params: { limit: 0, since }, auth });
  const changes = await couch.changes({ limit: BATCH, since, seq_interval: BATCH, batch_size: BATCH });
  const gone = changes.results.filter((change) => change.deleted);
  const keys = changes.results.filter((change) => !change.deleted).map((change) => change.id);
  if (changes.results.length) {
    const found = await couch.allDocs({ keys, include_docs: true });
    await write([...found.rows, ...gone.map(({ id }) => ({ id, deleted: true, doc: { _id: id, _deleted: true } }))]);
  }
  await query('update couchdb_progress set seq = $1, pending = $2, updated_at = now() where source = $3', [
    changes.last_seq,
    data.pending,
    source,
  ]);
  return changes.results.length;
}

async function main() {
  await query(TABLES);
  await query("insert into couchdb_progress (seq, source) values ('0', $1)", [source]);
  while (await turn());
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
