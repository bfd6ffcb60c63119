// Single documents, local ones, attachments, and the bulk requests.
'use strict';

const { CouchError, badRequest, notFound } = require('./http');

const MAX_DOCUMENT_BYTES = 8000000; // [couchdb] max_document_size
const CONFLICT = new CouchError(409, 'conflict', 'Document update conflict.');

function addRoutes(router, databases) {
  const on = (methods, pattern, handler) => router.add(methods, pattern, async (exchange) => {
    await handler(exchange, await databases.get(exchange.params.db));
  });
  on('POST', '/:db', (exchange, database) => store(exchange, database));
  on('POST', '/:db/_bulk_docs', bulkDocs);
  on('POST', '/:db/_bulk_get', bulkGet);
  on('POST', '/:db/_revs_diff', async (exchange, { pouch }) => exchange.send(await pouch.revsDiff(await exchange.jsonBody())));
  for (const [pattern, prefix] of [['/:db/_design/:name', '_design/'], ['/:db/:id', '']]) {
    const idOf = ({ params }) => prefix + (params.name ?? params.id);
    on('GET HEAD', pattern, (exchange, database) => fetch(exchange, database, idOf(exchange)));
    on('PUT', pattern, (exchange, database) => store(exchange, database, idOf(exchange)));
    on('DELETE', pattern, (exchange, database) => remove(exchange, database, idOf(exchange)));
    on('GET HEAD', `${pattern}/:file`, (exchange, database) => fetchAttachment(exchange, database, idOf(exchange)));
    on('PUT', `${pattern}/:file`, (exchange, database) => storeAttachment(exchange, database, idOf(exchange)));
    on('DELETE', `${pattern}/:file`, (exchange, database) => removeAttachment(exchange, database, idOf(exchange)));
  }
  on('GET', '/:db/_local/:name', async (exchange, database) => {
    exchange.send(await database.pouch.get(`_local/${exchange.params.name}`).catch(asMissing));
  });
  on('PUT', '/:db/_local/:name', storeLocal);
  on('DELETE', '/:db/_local/:name', async (exchange, { pouch }) => {
    const id = `_local/${exchange.params.name}`;
    await pouch.remove(await pouch.get(id).catch(asMissing));
    exchange.send({ ok: true, id, rev: '0-0' });
  });
}

function asMissing(error) {
  if (error.status === 404) throw notFound(error.reason === 'deleted' ? 'deleted' : 'missing');
  throw error;
}

function asConflict(error) {
  throw error.status === 409 ? CONFLICT : error;
}

async function fetch(exchange, { pouch }, id) {
  const { query } = exchange;
  const options = { rev: query.rev };
  for (const name of ['revs', 'revs_info', 'conflicts', 'attachments', 'latest']) options[name] = exchange.flag(name);
  if (query.open_revs) {
    const leaves = query.open_revs === 'all' ? 'all' : JSON.parse(query.open_revs);
    return exchange.send(await pouch.get(id, { ...options, open_revs: leaves }).catch(asMissing));
  }
  const doc = await pouch.get(id, options).catch(asMissing);
  return exchange.send(doc, 200, { ETag: `"${doc._rev}"` });
}

const revOf = ({ query, request }, doc = {}) => doc._rev ?? query.rev ?? request.headers['if-match']?.replace(/"/g, '');

async function store(exchange, database, id) {
  const doc = await exchange.jsonBody();
  if (typeof doc !== 'object' || doc === null || Array.isArray(doc)) throw badRequest('Document must be a JSON object');
  if (id !== undefined) doc._id = id;
  const rev = revOf(exchange, doc);
  if (rev) doc._rev = rev;
  checkDocument(doc);
  const options = { new_edits: exchange.query.new_edits !== 'false' };
  const written = doc._id === undefined ? database.pouch.post(doc) : database.pouch.put(doc, options);
  const result = await written.catch(asConflict);
  database.wrote();
  exchange.send({ ok: true, id: result.id, rev: result.rev }, 201, { ETag: `"${result.rev}"` });
}

async function remove(exchange, database, id) {
  const rev = revOf(exchange);
  if (!rev) await database.pouch.get(id).catch(asMissing);
  if (!rev) throw CONFLICT;
  const result = await database.pouch.remove(id, rev).catch(asConflict);
  database.wrote();
  exchange.send({ ok: true, id, rev: result.rev });
}

// CouchDB looks for no conflict here: a local document cannot serve as a lock.
async function storeLocal(exchange, { pouch }) {
  const id = `_local/${exchange.params.name}`;
  const doc = { ...(await exchange.jsonBody()), _id: id };
  const stored = await pouch.get(id).catch(() => ({}));
  const result = await pouch.put({ ...doc, _rev: stored._rev });
  exchange.send({ ok: true, id, rev: result.rev }, 201);
}

async function fetchAttachment(exchange, { pouch }, id) {
  const { file } = exchange.params;
  const doc = await pouch.get(id, { rev: exchange.query.rev }).catch(asMissing);
  const about = doc._attachments?.[file];
  if (!about) throw notFound('Document is missing attachment');
  const bytes = await pouch.getAttachment(id, file, { rev: doc._rev });
  exchange.response.writeHead(200, { 'Content-Type': about.content_type, 'Content-Length': bytes.length, ETag: `"${about.digest}"` });
  exchange.response.end(exchange.method === 'HEAD' ? undefined : bytes);
}

async function storeAttachment(exchange, database, id) {
  const type = exchange.request.headers['content-type'] || 'application/octet-stream';
  const bytes = await exchange.body();
  const result = await database.pouch.putAttachment(id, exchange.params.file, revOf(exchange), bytes, type).catch(asConflict);
  database.wrote();
  exchange.send({ ok: true, id, rev: result.rev }, 201);
}

async function removeAttachment(exchange, database, id) {
  const result = await database.pouch.removeAttachment(id, exchange.params.file, revOf(exchange)).catch(asConflict);
  database.wrote();
  exchange.send({ ok: true, id, rev: result.rev });
}

// A document that may not be stored makes CouchDB refuse the whole request.
function checkDocument(doc) {
  const id = doc._id;
  if (id !== undefined && typeof id !== 'string') throw badRequest('Document id must be a string');
  if (id === '') throw badRequest('Document id must not be empty');
  if (id?.startsWith('_') && !/^_(design|local)\/./.test(id)) {
    throw new CouchError(400, 'illegal_docid', 'Only reserved document ids may start with underscore.');
  }
  if (JSON.stringify(doc).length > MAX_DOCUMENT_BYTES) throw new CouchError(413, 'document_too_large', id);
}

async function bulkDocs(exchange, database) {
  const { docs, new_edits: newEdits = true } = await exchange.jsonBody();
  if (!Array.isArray(docs)) throw badRequest('POST body must include `docs` parameter.');
  docs.forEach(checkDocument);
  const rows = await database.pouch.bulkDocs({ docs }, { new_edits: newEdits });
  database.wrote();
  exchange.send(rows.map((row, index) => bulkRow(row, docs[index])), 201);
}

function bulkRow(row, doc) {
  if (row.ok) return { ok: true, id: row.id, rev: row.rev };
  const reason = row.status === 409 ? CONFLICT.reason : row.reason || row.message;
  return { id: row.id ?? doc?._id, error: row.name || 'unknown_error', reason };
}

async function bulkGet(exchange, database) {
  const { docs } = await exchange.jsonBody();
  if (!Array.isArray(docs)) throw badRequest('Missing JSON list of `docs`.');
  const options = { revs: exchange.flag('revs'), attachments: exchange.flag('attachments') };
  const results = await database.read((pouch) => Promise.all(docs.map((wanted) => bulkGetOne(pouch, wanted, options))));
  exchange.send({ results });
}

// Without a revision it gives all leaves, deleted ones too.
async function bulkGetOne(pouch, { id, rev }, options) {
  const docs = rev === undefined ? await allLeaves(pouch, id, options) : [await oneRevision(pouch, id, rev, options)];
  return { id, docs };
}

function allLeaves(pouch, id, options) {
  return pouch.get(id, { ...options, open_revs: 'all' }).catch(() => [missing(id, 'undefined')]);
}

function oneRevision(pouch, id, rev, options) {
  return pouch.get(id, { ...options, rev }).then((ok) => ({ ok }), () => missing(id, rev));
}

const missing = (id, rev) => ({ error: { id, rev, error: 'not_found', reason: 'missing' } });

module.exports = { addRoutes };
