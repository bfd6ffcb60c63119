// GET and POST /{db}/_changes.
'use strict';

const { Feed } = require('./feed');
const { CouchError, badRequest, notFound } = require('./http');
const { collectConflicts, collectLeaves, isDeleted } = require('pouchdb-merge');
const { matchesSelector } = require('pouchdb-selector-core');

function addRoutes(router, databases) {
  router.add('GET POST', '/:db/_changes', async (exchange) => {
    const database = await databases.get(exchange.params.db);
    const body = exchange.method === 'POST' ? await readBody(exchange) : {};
    const options = await readOptions(exchange, database, body);
    const feed = new Feed(exchange, new ChangesSource(database, options), await readSince(exchange, database));
    await feed.run();
  });
}

// An empty body is allowed; `since` in it is ignored, as by CouchDB.
async function readBody(exchange) {
  return Number(exchange.request.headers['content-length']) === 0 ? {} : exchange.jsonBody();
}

async function readSince(exchange, database) {
  const since = exchange.query.since ?? exchange.request.headers['last-event-id']?.replace(/^"|"$/g, '');
  return since === 'now' ? database.head() : database.sequences.read(since);
}

async function readOptions(exchange, database, body) {
  const { query } = exchange;
  return {
    allLeaves: query.style === 'all_docs',
    fields: query.filter === '_selector' ? body.fields : undefined,
    conflicts: exchange.flag('conflicts'),
    include_docs: exchange.flag('include_docs'),
    attachments: exchange.flag('attachments'),
    limit: query.limit === undefined ? undefined : Number(query.limit),
    descending: exchange.flag('descending') && (query.feed || 'normal') === 'normal',
    filter: await readFilter(exchange, database, body),
  };
}

// Returns a function that says which documents pass, or undefined.
async function readFilter({ query }, database, body) {
  switch (query.filter) {
    case undefined: return undefined;
    case '_selector': return selectorFilter(body.selector);
    case '_doc_ids': return docIdsFilter(body.doc_ids || (query.doc_ids && JSON.parse(query.doc_ids)));
    case '_design': return (doc) => doc._id.startsWith('_design/');
    case '_view': return viewFilter(await designFunction(database, query.view, 'views'));
    default: return designFilter(await designFunction(database, query.filter, 'filters'), query);
  }
}

function selectorFilter(selector) {
  if (!selector) throw badRequest('`selector` must be present in POST body.');
  return (doc) => matchesSelector(doc, selector);
}

function docIdsFilter(ids) {
  if (!Array.isArray(ids)) throw badRequest('`doc_ids` filter parameter is not a list.');
  const wanted = new Set(ids);
  return (doc) => wanted.has(doc._id);
}

function viewFilter(text) {
  let emitted = false;
  const map = new Function('emit', `return (${text})`)(() => { emitted = true; });
  return (doc) => {
    emitted = false;
    map(doc);
    return emitted;
  };
}

function designFilter(text, query) {
  const passes = new Function(`return (${text})`)();
  return (doc) => Boolean(passes(doc, { query }));
}

async function designFunction(database, name = '', kind) {
  const [design, member] = name.split('/');
  const doc = await database.pouch.get(`_design/${design}`).catch(() => { throw notFound('missing'); });
  const found = doc[kind]?.[member];
  if (!found) throw notFound(`missing json key: ${member}`);
  return kind === 'views' ? found.map : found;
}

// What a feed reads; see Feed.
class ChangesSource {
  constructor(database, options) {
    Object.assign(this, { database, options, emitter: database, write: database.sequences.writer() });
  }

  version() {
    return this.database.writes;
  }

  gone() {
    return this.database.gone;
  }

  pending(position) {
    return this.options.descending ? 0 : this.database.pending(position);
  }

  async read(position, limit) {
    if (this.options.descending) return this.readDescending(position);
    const { shards } = this.database;
    const since = Math.min(...position);
    const { rows, last } = await this.database.read((pouch) => readRows(pouch, since, limit, this.options));
    const more = rows.length >= limit;
    const reached = more ? rows.at(-1).seq : last;
    return { rows: shards.arrange(rows, position), last: position.map((seq) => Math.max(seq, reached)), more };
  }

  // One read from the end, whatever `since` says.
  async readDescending(position) {
    const { shards } = this.database;
    const { rows } = await this.database.read((pouch) => readRows(pouch, 0, this.options.limit, this.options));
    const placed = rows.map((row) => Object.assign(row, { seq: shards.at(row.seq) }));
    return { rows: placed, last: placed.at(-1)?.seq ?? position, more: false };
  }
}

// Reads below PouchDB's own changes(), which knows neither the winner among all leaves nor CouchDB's order.
function readRows(pouch, since, limit, options) {
  const rows = [];
  return new Promise((done, failed) => {
    pouch._changes({
      since,
      limit,
      descending: options.descending,
      include_docs: options.include_docs,
      attachments: options.attachments,
      filter: options.filter,
      return_docs: false,
      processChange: (doc, metadata) => toRow(doc, metadata, options),
      onChange: (row) => rows.push(tidy(row, options)),
      complete: (error, result) => (error ? failed(asCouchError(error)) : done({ rows, last: result.last_seq })),
    });
  });
}

function toRow(doc, metadata, { allLeaves, conflicts }) {
  const row = { seq: 0, id: metadata.id, changes: leavesOf(doc._rev, metadata, allLeaves) };
  if (isDeleted(metadata, doc._rev)) row.deleted = true;
  const others = conflicts ? collectConflicts(metadata) : [];
  row.doc = others.length ? { ...doc, _conflicts: others } : doc;
  return row;
}

// The winner first, then all other leaves, deleted ones too.
function leavesOf(winner, metadata, allLeaves) {
  const isSingle = !allLeaves || Object.keys(metadata.rev_map).length === 1;
  const others = isSingle ? [] : collectLeaves(metadata.rev_tree).filter(({ rev }) => rev !== winner);
  return [{ rev: winner }, ...others.map(({ rev }) => ({ rev }))];
}

function tidy(row, { include_docs: includeDocs, fields }) {
  if (includeDocs && row.doc._deleted === undefined && row.deleted) row.doc._deleted = true;
  if (includeDocs && fields) row.doc = Object.fromEntries(fields.map((name) => [name, row.doc[name]]));
  return row;
}

// A filter that throws.
function asCouchError(error) {
  return new CouchError(500, error.name || 'error', error.reason || error.message);
}

module.exports = { addRoutes };
