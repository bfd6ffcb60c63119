// PouchDB on disk or in memory, and what it stores under which key.
'use strict';

const fs = require('fs');
const path = require('path');
const PouchCore = require('pouchdb-core');
const LevelDown = require('leveldown');

const CACHE_CHARACTERS = 96 * 1024 * 1024;

// LevelDB that remembers what was read and written. PouchDB reads every document in two turns through a pool of
// four threads; that is 12,000 documents a second, where answering from memory gives four times as many.
class CachingLevelDown extends LevelDown {
  constructor(location) {
    super(location);
    this.cache = new Map();
    this.cached = 0;
    this.writes = 0;
  }

  _get(key, options, callback) {
    const name = String(key);
    const known = options.asBuffer === false ? this.cache.get(name) : undefined;
    if (known !== undefined) return queueMicrotask(() => callback(null, known));
    const writes = this.writes;
    return super._get(key, options, (error, value) => {
      // A value that was read while somebody wrote may be the one before.
      if (!error && typeof value === 'string' && writes === this.writes) this.remember(name, value);
      callback(error, value);
    });
  }

  _batch(operations, options, callback) {
    this.forget(operations);
    super._batch(operations, options, (error) => {
      this.forget(operations);
      for (const { type, key, value } of error ? [] : operations) {
        if (type === 'put' && typeof value === 'string') this.remember(String(key), value);
      }
      callback(error);
    });
  }

  forget(operations) {
    this.writes += 1;
    for (const { key } of operations) this.cache.delete(String(key));
  }

  remember(name, value) {
    this.cached += value.length;
    if (this.cached > CACHE_CHARACTERS) {
      this.cache.clear();
      this.cached = value.length;
    }
    this.cache.set(name, value);
  }
}

// Opens the stores below PouchDB, and keeps hold of them: a purge has to go behind PouchDB's back.
class Storage {
  constructor(directory) {
    this.directory = directory;
    this.stores = new Map();
    const stores = this.stores;
    const Store = directory ? CachingLevelDown : require('memdown');
    function openStore(location) { // PouchDB knows its kinds of stores by this function's name
      stores.set(location, new Store(location));
      return stores.get(location);
    }
    openStore.destroy = directory ? LevelDown.destroy : Store.destroy;
    this.Pouch = this.makePouch(openStore);
  }

  makePouch(db) {
    const adapter = this.directory ? require('pouchdb-adapter-leveldb') : require('pouchdb-adapter-memory');
    const Pouch = PouchCore.plugin(adapter).plugin(require('pouchdb-mapreduce')).plugin(require('pouchdb-find'));
    if (!this.directory) return Pouch.defaults({ adapter: 'memory', db });
    fs.mkdirSync(this.directory, { recursive: true });
    return Pouch.defaults({ adapter: 'leveldb', prefix: path.resolve(this.directory) + path.sep, db });
  }

  open(fileName) {
    const pouch = new this.Pouch(fileName);
    pouch.setMaxListeners(0);
    return pouch;
  }

  // Removes a document and its revisions' bodies as if they had never been.
  removeTraces(pouch, id, seqs) {
    const keys = [`\xffdocument-store\xff${id}`, ...seqs.map((n) => `\xffby-sequence\xff${pad(n)}`)];
    const operations = keys.map((key) => ({ type: 'del', key }));
    const store = this.stores.get(pouch.__opts.name);
    return new Promise((done, failed) => store.batch(operations, (e) => (e ? failed(e) : done())));
  }
}

const pad = (seq) => String(seq).padStart(16, '0');

module.exports = { Storage };
