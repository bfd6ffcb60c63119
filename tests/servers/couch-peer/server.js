// couch-peer: an HTTP server that answers as CouchDB 3.5 does, over PouchDB's storage.
//
//   node server.js --port 5984 (--dir DATA | --memory) [--admin user:password] [--session-seconds 600]
//                  [--shards 1] [--int-seq] [--stable-seq]
//
// With one shard rows come in the order of the writes, with more in an order that no two responses share.
// What differs from a real one: revisions have other hashes; no validation functions; no multipart; a purge must
// name all leaves of a document.
'use strict';

const http = require('http');
const { parseArgs } = require('util');
const { Router } = require('./http');
const { Auth } = require('./auth');
const { Databases } = require('./databases');

const VERSION = '3.5.0';
const ROUTES = [require('./root'), require('./changes'), require('./documents'), require('./views')];

function readOptions() {
  const text = (name) => ({ [name]: { type: 'string' } });
  const flag = (name) => ({ [name]: { type: 'boolean', default: false } });
  const { values } = parseArgs({
    options: {
      ...text('port'), ...text('shards'), ...text('dir'), ...text('admin'), ...text('session-seconds'),
      ...flag('memory'), ...flag('int-seq'), ...flag('stable-seq'),
    },
  });
  return values;
}

function serve(options) {
  const databases = new Databases(options);
  const auth = new Auth(options.admin, Number(options['session-seconds'] || 600));
  const router = new Router();
  auth.addRoutes(router);
  for (const routes of ROUTES) routes.addRoutes(router, databases, { version: VERSION });
  const server = http.createServer((request, response) => {
    response.setHeader('Server', `CouchDB/${VERSION} (couch-peer)`);
    router.handle(request, response, auth);
  });
  server.requestTimeout = 0; // a bulk load from a slow client may take long
  server.keepAliveTimeout = 120000; // longer than any client keeps an idle connection to use it again
  server.listen(Number(options.port || 5984), '127.0.0.1', () => {
    console.log(`couch-peer is ready on http://127.0.0.1:${server.address().port}`);
  });
}

// At once, as a node that goes down: open feeds end without their last chunk.
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
serve(readOptions());
