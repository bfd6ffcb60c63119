// Sequence tokens: opaque, as CouchDB's, so that nobody can get away with reading or comparing them.
//
// A token is "N-" and 90 characters or more: a head, the database's epoch, a nonce and a seq for each shard. As in
// CouchDB only the opaque part counts, the same position has another token in every response, and a token of
// another database, or of an earlier one of the same name, is accepted and means the beginning.
'use strict';

const crypto = require('crypto');
const { badRequest } = require('./http');

const HEAD = 'g1AAAACZ';
const FILLER = 'eJzLYWBgYMpgTmEQTM4vTc5ISXIwNDLXMwBCwxyQVCJDUv3___wBAPYT';
const SEQ_DIGITS = 8; // in base 36
const OPAQUE = new RegExp(`^(?:\\d+-)?${HEAD}([\\w-]{8})([\\w-]{6})((?:[0-9a-z]{8})+)${FILLER}$`);

const NO_NONCE = 'AAAAAA';
const newNonce = () => crypto.randomBytes(6).toString('base64url').slice(0, 6);
const newEpoch = () => crypto.randomBytes(6).toString('base64url');

class Sequences {
  constructor(epoch, shards, { integers = false, stable = false } = {}) {
    Object.assign(this, { epoch, shards, integers, stable });
  }

  // Returns how one response writes its positions; without a nonce, how all do.
  writer(nonce = newNonce()) {
    if (this.integers) return ([seq]) => seq;
    const start = `-${HEAD}${this.epoch}${this.stable ? NO_NONCE : nonce}`;
    return (position) => sum(position) + start + position.map(digits).join('') + FILLER;
  }

  writeStable(seq) {
    return this.writer(NO_NONCE)(this.shards.at(seq));
  }

  // Returns the position that a token names.
  read(token) {
    const start = this.shards.at(0);
    if (token === undefined || token === '0') return start;
    if (this.integers && /^\d+$/.test(token)) return [Number(token)];
    const parts = OPAQUE.exec(token);
    if (!parts) throw badRequest("Malformed sequence supplied in 'since' parameter.");
    const seqs = parts[3].match(/.{8}/g).map((text) => parseInt(text, 36));
    return parts[1] === this.epoch && seqs.length === start.length ? seqs : start;
  }
}

const sum = (position) => position.reduce((total, seq) => total + seq, 0);
const digits = (seq) => seq.toString(36).padStart(SEQ_DIGITS, '0');

module.exports = { Sequences, newEpoch };
