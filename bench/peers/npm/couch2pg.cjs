// couch2pg 0.7.1 from npm, as a library, until it has imported everything.
// Its own migrations use pg 4, which cannot connect from a current Node.js: the tables are made here as they leave them.
//
// Usage: node couch2pg.cjs DATABASE_URL POSTGRES_URL; the login to CouchDB comes from the environment.
'use strict';

const { Agent } = require('http');
const { Promise } = require('rsvp');
const { importer } = require('couch2pg');
const PouchDB = require('couch2pg/db');
const connect = require('pg-promise')({ promiseLib: Promise });

// Without an agent, node-fetch 2 on a current Node.js sends requests to connections that it has asked to be closed.
const agent = new Agent({ keepAlive: true });
const fetch = (url, options) => PouchDB.fetch(url, { ...options, agent });

const TABLES = `
  create table couchdb (doc jsonb);
  create unique index couchdb_doc_uuid on couchdb ((doc->>'_id'));
  create index couchdb_doc_type on couchdb ((doc->>'type'));
  create table couchdb_progress (seq varchar, source varchar not null);
  create unique index couchdb_progress_source on couchdb_progress (source);
`;

async function main([url, dsn]) {
  const username = process.env.PILLOWD_BENCH_COUCHDB_USER;
  const password = process.env.PILLOWD_BENCH_COUCHDB_PASSWORD;
  const couch = new PouchDB(url, { skip_setup: true, fetch, auth: username && { username, password } });
  const postgres = connect(dsn);
  await postgres.none(TABLES);
  await importer(postgres, couch, undefined, undefined, new URL(url).pathname).importAll();
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
