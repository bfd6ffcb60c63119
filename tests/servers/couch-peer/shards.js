// A database in several shards, as far as a client of the feed can tell.
//
// CouchDB merges its shards' rows in whatever order they arrive, another one in each response, and a token
// names a place in each shard. With --shards N a feed does the same: a position is a list of N seqs.
'use strict';

class Shards {
  constructor(count = 1) {
    this.count = count;
  }

  // Returns the position right after a seq of the whole database.
  at(seq) {
    return new Array(this.count).fill(seq);
  }

  of(id) {
    let hash = 0;
    for (let i = 0; i < id.length; i += 1) hash = (hash * 31 + id.charCodeAt(i)) >>> 0;
    return hash % this.count;
  }

  // Returns the rows after a position, mixed, each with the position after it in place of its seq.
  arrange(rows, position) {
    if (this.count === 1) return rows.map((row) => Object.assign(row, { seq: [row.seq] }));
    const now = [...position];
    return this.mix(rows.filter((row) => row.seq > position[this.of(row.id)])).map((row) => {
      now[this.of(row.id)] = row.seq;
      return Object.assign(row, { seq: [...now] });
    });
  }

  // Any order between the shards, but each shard's own rows in theirs.
  mix(rows) {
    const queues = this.at(0).map(() => []);
    for (const row of rows) queues[this.of(row.id)].push(row);
    const turns = rows.map((row) => this.of(row.id));
    for (let i = turns.length - 1; i > 0; i -= 1) {
      const j = Math.floor(Math.random() * (i + 1));
      [turns[i], turns[j]] = [turns[j], turns[i]];
    }
    for (const queue of queues) queue.reverse();
    return turns.map((shard) => queues[shard].pop());
  }
}

module.exports = { Shards };
