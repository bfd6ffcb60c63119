// What is asked of the server, and of a database as a whole.
'use strict';

const { Feed } = require('./feed');
const { badRequest } = require('./http');
const { newUuid } = require('./databases');

function addRoutes(router, databases, { version }) {
  addServerRoutes(router, databases, version);
  addDatabaseRoutes(router, databases);
}

function addServerRoutes(router, databases, version) {
  router.add('GET HEAD', '/', (exchange) => exchange.send({
    couchdb: 'Welcome', version, uuid: databases.uuid(), features: [], vendor: { name: 'couch-peer' },
  }));
  router.add('GET HEAD', '/_up', (exchange) => exchange.send({ status: 'ok', seeds: {} }));
  router.add('GET', '/_all_dbs', (exchange) => exchange.send(databases.list()));
  router.add('POST', '/_dbs_info', async (exchange) => exchange.send(await dbsInfo(exchange, databases)));
  router.add('GET', '/_active_tasks', (exchange) => exchange.send([]));
  router.add('GET', '/_uuids', (exchange) => {
    exchange.send({ uuids: Array.from({ length: Number(exchange.query.count) || 1 }, newUuid) });
  });
  router.add('GET', '/_db_updates', (exchange) => {
    const source = new UpdatesSource(databases);
    return new Feed(exchange, source, source.start(exchange.query.since)).run();
  });
}

function addDatabaseRoutes(router, databases) {
  const withDatabase = (answer) => async (exchange) => {
    const database = await databases.get(exchange.params.db);
    exchange.send(...(await answer(database, exchange)));
  };
  router.add('PUT', '/:db', async (exchange) => {
    await databases.create(exchange.params.db);
    exchange.send({ ok: true }, 201);
  });
  router.add('DELETE', '/:db', async (exchange) => {
    await databases.destroy(exchange.params.db);
    exchange.send({ ok: true });
  });
  router.add('GET HEAD', '/:db', withDatabase(async (database) => [await database.info()]));
  router.add('POST', '/:db/_compact', withDatabase(async ({ pouch }) => [await pouch.compact(), 202]));
  router.add('POST', '/:db/_ensure_full_commit', withDatabase(({ meta }) => [
    { ok: true, instance_start_time: meta.created }, 201,
  ]));
  router.add('GET', '/:db/_security', withDatabase(() => [{ admins: { roles: ['_admin'] }, members: { roles: ['_admin'] } }]));
  router.add('GET', '/:db/_revs_limit', withDatabase(() => [1000]));
  router.add('GET', '/:db/_purged_infos', withDatabase(({ meta }) => [{ purged_infos: meta.purges }]));
  router.add('POST', '/:db/_purge', withDatabase((database, exchange) => purge(databases, database, exchange)));
}

async function purge(databases, database, exchange) {
  const purged = {};
  for (const [id, revs] of Object.entries(await exchange.jsonBody())) {
    purged[id] = await databases.purge(database, id, revs);
  }
  return [{ purge_seq: null, purged }, 201];
}

async function dbsInfo(exchange, databases) {
  const { keys } = await exchange.jsonBody();
  if (!Array.isArray(keys)) throw badRequest('`keys` member must exist.');
  return Promise.all(keys.map(async (key) => {
    if (!databases.has(key)) return { key, error: 'not_found' };
    return { key, info: await (await databases.get(key)).info() };
  }));
}

// The births, deaths and writes of all databases, as a feed's source.
class UpdatesSource {
  constructor(databases) {
    Object.assign(this, { databases, emitter: databases });
  }

  start(since = '0') {
    return since === 'now' ? this.databases.updateSeq : Number(/^\d*/.exec(since)[0]);
  }

  write(position) {
    return this.databases.options['int-seq'] ? position : `${position}-u${position}`;
  }

  version() {
    return this.databases.updateSeq;
  }

  gone() {
    return false;
  }

  after(position) {
    return this.databases.updates.filter(({ seq }) => seq > position);
  }

  async pending(position) {
    return this.after(position).length;
  }

  async read(since, limit) {
    const rows = this.after(since).slice(0, limit);
    const last = rows.at(-1)?.seq ?? since;
    return { rows, last, more: rows.length === limit };
  }
}

module.exports = { addRoutes };
