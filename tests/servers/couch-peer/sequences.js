// Sequence tokens: opaque, as CouchDB's, so that nobody can get away with reading or comparing them.
//
// A token is "N-" and 90 characters: a head, the database's epoch, a nonce and the position. As in CouchDB only
// the opaque part counts, the same position has another token in every response, and a token of another
// database, or of an earlier one of the same name, is accepted and means the beginning.
'use strict';

const crypto = require('crypto');
const { badRequest } = require('./http');

const HEAD = 'g1AAAACZ';
const FILLER = 'eJzLYWBgYMpgTmEQTM4vTc5ISXIwNDLXMwBCwxyQVCJDUv3___wBAPYT';
const OPAQUE = new RegExp(`^(?:\\d+-)?${HEAD}([\\w-]{8})([\\w-]{6})([0-9a-z]{8})${FILLER}$`);

const newEpoch = () => crypto.randomBytes(6).toString('base64url');

class Sequences {
  constructor(epoch, { integers = false, stable = false } = {}) {
    Object.assign(this, { epoch, integers, stable });
  }

  // Returns how one response writes its positions.
  writer() {
    if (this.integers) return (position) => position;
    const nonce = this.stable ? 'AAAAAA' : crypto.randomBytes(6).toString('base64url').slice(0, 6);
    const start = `-${HEAD}${this.epoch}${nonce}`;
    return (position) => `${position}${start}${position.toString(36).padStart(8, '0')}${FILLER}`;
  }

  read(token) {
    if (token === undefined || token === '0') return 0;
    if (this.integers && /^\d+$/.test(token)) return Number(token);
    const parts = OPAQUE.exec(token);
    if (!parts) throw badRequest("Malformed sequence supplied in 'since' parameter.");
    return parts[1] === this.epoch ? parseInt(parts[3], 36) : 0;
  }
}

module.exports = { Sequences, newEpoch };
