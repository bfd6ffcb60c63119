// _all_docs, views and _find: PouchDB's, in CouchDB's clothes.
'use strict';

const { badRequest } = require('./http');

const JSON_PARAMS = {
  startkey: 'startkey', start_key: 'startkey', endkey: 'endkey', end_key: 'endkey', key: 'key', keys: 'keys',
};
const FLAGS = ['include_docs', 'conflicts', 'descending', 'inclusive_end', 'update_seq', 'reduce', 'group', 'attachments'];
const NUMBERS = ['limit', 'skip', 'group_level'];
// Without an end PouchDB on LevelDB leaves out all ids beyond U+00FF. Those beyond U+FFFF stay out.
const LAST = '\uffff';

function addRoutes(router, databases) {
  const on = (methods, pattern, handler) => router.add(methods, pattern, async (exchange) => {
    const database = await databases.get(exchange.params.db);
    const body = exchange.method === 'POST' ? await exchange.jsonBody() : {};
    exchange.send(await database.read((pouch) => handler(pouch, body, exchange, database)));
  });
  on('GET POST', '/:db/_all_docs', allDocs);
  on('GET POST', '/:db/_design/:name/_view/:view', (pouch, body, exchange) => {
    const { name, view } = exchange.params;
    return pouch.query(`${name}/${view}`, { reduce: undefined, ...readOptions(exchange, body) });
  });
  on('POST', '/:db/_find', find);
  on('POST', '/:db/_index', (pouch, body) => pouch.createIndex(body));
  on('GET', '/:db/_index', (pouch) => pouch.getIndexes());
  on('DELETE', '/:db/_index/:design/json/:name', (pouch, body, { params }) => {
    const ddoc = params.design.startsWith('_design/') ? params.design : `_design/${params.design}`;
    return pouch.deleteIndex({ ddoc, name: params.name, type: 'json' });
  });
}

function readOptions(exchange, body) {
  const options = { ...body };
  for (const [name, option] of Object.entries(JSON_PARAMS)) {
    if (exchange.query[name] !== undefined) options[option] = exchange.jsonParam(name);
  }
  for (const name of FLAGS) if (exchange.query[name] !== undefined) options[name] = exchange.flag(name);
  for (const name of NUMBERS) if (exchange.query[name] !== undefined) options[name] = Number(exchange.query[name]);
  return options;
}

async function allDocs(pouch, body, exchange, database) {
  const options = readOptions(exchange, body);
  if (!options.key && !options.keys) options[options.descending ? 'startkey' : 'endkey'] ??= LAST;
  const found = await pouch.allDocs(options);
  const answer = { total_rows: found.total_rows, offset: found.offset ?? 0, rows: found.rows };
  if (options.update_seq) answer.update_seq = options.keys ? null : database.sequences.writer()(await database.head());
  return answer;
}

async function find(pouch, body) {
  if (!body.selector) throw badRequest('Missing required key: selector');
  const { docs, warning } = await pouch.find(body);
  return { docs, bookmark: 'nil', ...(warning ? { warning } : {}) };
}

module.exports = { addRoutes };
