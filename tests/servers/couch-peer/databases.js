// The databases of the server: names, their birth and death, and what they count.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const { EventEmitter } = require('events');
const { CouchError, badRequest, notFound } = require('./http');
const { Sequences, newEpoch } = require('./sequences');
const { Shards } = require('./shards');
const { Storage } = require('./storage');

const META = '_local/couch-peer'; // kept in the database itself, so that it lives and dies with it
const SYSTEM = ['_users', '_replicator', '_global_changes'];
const UPDATES_KEPT = 10000;

// One incarnation of a database. Emits "write" after each write and when it is deleted.
class Database extends EventEmitter {
  constructor(name, pouch, meta, options) {
    super();
    this.setMaxListeners(0); // every open feed listens
    Object.assign(this, { name, pouch, meta, gone: false, writes: 0, reading: 0, purging: null });
    this.shards = new Shards(options['int-seq'] ? 1 : Number(options.shards || 1));
    const kinds = { integers: options['int-seq'], stable: options['stable-seq'] };
    this.sequences = new Sequences(meta.epoch, this.shards, kinds);
    this.current = new Map(); // id -> {seq, deleted}, in the order of the seqs
    this.counted = 0;
    this.counting = Promise.resolve();
  }

  wrote() {
    this.writes += 1;
    this.emit('write');
  }

  // Returns the position after everything that is written.
  async head() {
    return this.shards.at((await this.pouch.info()).update_seq);
  }

  // Runs one read that a deletion has to wait for: the store must not be closed under it. Nor may a purge go on
  // meanwhile: PouchDB crashes when it has read a revision and does not find the document it belongs to.
  async read(work) {
    while (this.purging) await this.purging;
    if (this.gone) throw notFound('Database does not exist.');
    this.reading += 1;
    try {
      return await work(this.pouch);
    } finally {
      this.reading -= 1;
      this.emit('read');
    }
  }

  // Runs what no read may see half done.
  async alone(work) {
    while (this.purging) await this.purging;
    let end;
    this.purging = new Promise((done) => { end = done; });
    try {
      await this.rest();
      return await work();
    } finally {
      this.purging = null;
      end();
    }
  }

  // Waits until nothing is being read.
  async rest() {
    while (this.reading) await new Promise((done) => this.once('read', done));
  }

  async destroy() {
    this.gone = true;
    this.emit('write');
    await this.rest();
    await this.pouch.destroy();
  }

  // Brings `current` up to date; one at a time, and always up to what was written before the call.
  count() {
    // An earlier failure was its own caller's to hear of.
    this.counting = this.counting.catch(() => {}).then(() => this.read(async (pouch) => {
      const { results, last_seq: last } = await pouch.changes({ since: this.counted });
      for (const { id, seq, deleted } of results) {
        this.current.delete(id); // so that it moves to the end
        this.current.set(id, { seq, deleted: Boolean(deleted) });
      }
      this.counted = Math.max(this.counted, last);
    }));
    return this.counting;
  }

  // Returns how many rows a feed still has after a position.
  async pending(position) {
    await this.count();
    let rows = 0;
    for (const [id, { seq }] of this.current) if (seq > position[this.shards.of(id)]) rows += 1;
    return rows;
  }

  async info() {
    await this.count();
    const deleted = [...this.current.values()].filter((entry) => entry.deleted).length;
    return {
      instance_start_time: this.meta.created,
      db_name: this.name,
      purge_seq: this.sequences.writeStable(this.meta.purges.length),
      update_seq: this.sequences.writer()(await this.head()),
      sizes: { file: 0, external: 0, active: 0 },
      props: {},
      doc_del_count: deleted,
      doc_count: this.current.size - deleted,
      disk_format_version: 8,
      compact_running: false,
      cluster: { q: this.shards.count, n: 1, w: 1, r: 1 },
    };
  }

  async purged(id, revs) {
    this.current.delete(id);
    this.meta.purges.push({ id, revs });
    this.meta._rev = (await this.pouch.put(this.meta)).rev;
    this.wrote();
  }
}

class Databases extends EventEmitter {
  constructor(options) {
    super();
    this.setMaxListeners(0);
    this.options = options;
    this.storage = new Storage(options.memory ? null : options.dir || './data');
    this.open = new Map(); // name -> promise of a Database
    this.dying = new Map(); // name -> promise of its end: until then nobody may open or create it
    this.born = new Map(); // name -> when its last incarnation was created, in seconds
    this.updates = []; // for _db_updates
    this.updateSeq = 0;
  }

  // Names go encoded into the file system: they may contain "/".
  list() {
    const onDisk = this.storage.directory ? fs.readdirSync(this.storage.directory).filter((n) => !n.startsWith('.')) : [];
    const names = [...onDisk.map(decodeURIComponent), ...this.open.keys()];
    return [...new Set(names)].filter((name) => !name.includes('-mrview-')).sort();
  }

  has(name) {
    return !this.dying.has(name) && (this.open.has(name) || this.list().includes(name));
  }

  async get(name) {
    if (!this.has(name)) throw notFound('Database does not exist.');
    return this.load(name);
  }

  async create(name) {
    if (!/^[a-z][a-z0-9_$()+/-]*$/.test(name) && !SYSTEM.includes(name)) {
      throw new CouchError(400, 'illegal_database_name', `Name: '${name}'. Only lowercase characters (a-z), `
        + 'digits (0-9), and any of the characters _, $, (, ), +, -, and / are allowed. Must begin with a letter.');
    }
    await this.dying.get(name);
    if (this.has(name)) throw new CouchError(412, 'file_exists', 'The database could not be created, the file already exists.');
    await this.load(name);
    this.note(name, 'created');
  }

  async destroy(name) {
    const database = await this.get(name);
    const end = database.destroy();
    this.dying.set(name, end);
    this.open.delete(name);
    try {
      await end;
    } finally {
      this.dying.delete(name);
    }
    this.note(name, 'deleted');
  }

  load(name) {
    if (!this.open.has(name)) this.open.set(name, this.openDatabase(name));
    return this.open.get(name);
  }

  async openDatabase(name) {
    const pouch = this.storage.open(encodeURIComponent(name));
    const meta = await pouch.get(META).catch(() => this.newMeta(pouch, name));
    const database = new Database(name, pouch, meta, this.options);
    database.on('write', () => { if (!database.gone) this.note(name, 'updated'); });
    return database;
  }

  // Two incarnations of a name never share a second here, where they would in CouchDB: tests need not wait.
  async newMeta(pouch, name) {
    const created = Math.max(Math.floor(Date.now() / 1000), (this.born.get(name) || 0) + 1);
    this.born.set(name, created);
    const meta = { _id: META, epoch: newEpoch(), created: String(created), purges: [] };
    meta._rev = (await pouch.put(meta)).rev;
    return meta;
  }

  note(name, type) {
    this.updates.push({ db_name: name, type, seq: (this.updateSeq += 1) });
    if (this.updates.length > UPDATES_KEPT) this.updates.shift();
    this.emit('write');
  }

  // Removes a document for good. Only whole documents: what a revision tree loses is PouchDB's own affair.
  // One after the other, from the first look to the note: a client that gave up may already ask again.
  async purge(database, id, revs) {
    return database.alone(() => this.purgeAlone(database, id, revs));
  }

  async purgeAlone(database, id, revs) {
    const found = await new Promise((done) => {
      database.pouch._getRevisionTree(id, (error, tree) => done(error ? null : tree));
    });
    if (!found) return [];
    const { metadata } = await rawGet(database.pouch, id, revs[0]);
    const leaves = await database.pouch.get(id, { open_revs: 'all' });
    const known = leaves.map(({ ok }) => ok._rev);
    if (known.some((rev) => !revs.includes(rev))) throw badRequest('couch-peer purges whole documents: name all leaves');
    await this.storage.removeTraces(database.pouch, id, Object.values(metadata.rev_map));
    await database.purged(id, known);
    return known;
  }

  // The server's own id: one for ever, if it has a directory.
  uuid() {
    if (!this.ownUuid) this.ownUuid = this.storage.directory ? this.storedUuid() : newUuid();
    return this.ownUuid;
  }

  storedUuid() {
    const file = path.join(this.storage.directory, '.uuid');
    if (!fs.existsSync(file)) fs.writeFileSync(file, newUuid());
    return fs.readFileSync(file, 'utf8');
  }
}

const newUuid = () => crypto.randomUUID().replace(/-/g, '');

const rawGet = (pouch, id, rev) => new Promise((done, failed) => {
  pouch._get(id, { rev }, (error, found) => (error ? failed(error) : done(found)));
});

module.exports = { Databases, newUuid };
