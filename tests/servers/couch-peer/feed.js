// One feed of rows to one client: normal, longpoll, continuous or eventsource, byte for byte as CouchDB frames them.
'use strict';

const { CouchError, badRequest } = require('./http');

const MAX_WAIT_MS = 60000; // [chttpd] changes_timeout caps both timeout and heartbeat
const NO_LIMIT = 1e15;
const ROWS_PER_READ = 500;

// Drives a source {emitter, write, version(), gone(), read(since, limit) -> {rows, last, more}, pending(last)}.
class Feed {
  constructor(exchange, source, since) {
    const { query, response } = exchange;
    Object.assign(this, { response, source, position: since, sent: 0, closed: false, atEnd: false });
    this.kind = readKind(query.feed);
    this.isStream = this.kind === 'continuous' || this.kind === 'eventsource';
    this.limit = readLimit(query.limit);
    this.seqInterval = Number(query.seq_interval) || 1;
    this.heartbeat = readHeartbeat(query.heartbeat);
    // A heartbeat switches the timeout off: such a feed never ends by itself.
    this.timeout = this.heartbeat ? Infinity : readTimeout(query.timeout);
    this.format = FORMATS[this.kind];
    response.on('close', () => { this.closed = true; source.emitter.emit('write'); });
  }

  async run() {
    this.response.writeHead(200, { 'Content-Type': this.format.type, 'Cache-Control': 'must-revalidate' });
    await this.put(this.format.open);
    for (;;) {
      const version = this.source.version(); // a write during the read must not be slept through
      await this.sendAll();
      this.lastActive = Date.now();
      if (this.isOver() || !(await this.awaitWrite(version))) break;
    }
    if (!this.closed) this.response.end(this.format.close(this.source.write(this.position), await this.pending()));
  }

  isOver() {
    const hasAnswered = this.kind === 'normal' || (this.kind === 'longpoll' && this.sent > 0);
    return this.closed || hasAnswered || this.sent >= this.limit || this.source.gone();
  }

  async sendAll() {
    let more = this.sent < this.limit;
    while (more && !this.closed && !this.source.gone()) {
      const batch = await this.source.read(this.position, Math.min(ROWS_PER_READ, this.limit - this.sent));
      if (batch.rows.length) await this.put(batch.rows.map((row) => this.rowText(row)).join(''));
      this.position = batch.last;
      this.atEnd = !batch.more;
      more = batch.more && this.sent < this.limit;
    }
  }

  // With seq_interval=K the r-th row carries its seq when (limit - r + 1) mod K = 0.
  rowText({ seq, ...rest }) {
    const carries = (this.limit - this.sent) % this.seqInterval === 0;
    const token = carries || this.kind === 'eventsource' ? this.source.write(seq) : null;
    const text = this.format.row({ seq: carries ? token : null, ...rest }, this.sent === 0, token);
    this.sent += 1;
    return text;
  }

  // Returns true after a write, false when the feed has timed out or lost its client.
  async awaitWrite(version) {
    let beaten = Date.now();
    while (this.source.version() === version && !this.closed && !this.source.gone()) {
      const now = Date.now();
      if (now >= this.lastActive + this.timeout) return false;
      if (this.heartbeat && now >= beaten + this.heartbeat) {
        beaten = now;
        await this.put(this.format.beat);
      }
      await this.sleep(Math.min(this.lastActive + this.timeout, this.heartbeat ? beaten + this.heartbeat : Infinity) - now);
    }
    if (this.kind === 'continuous') await this.put('\n'); // CouchDB sends one whenever a feed wakes up
    return !this.closed;
  }

  sleep(milliseconds) {
    return new Promise((done) => {
      const { emitter } = this.source;
      const wake = () => { clearTimeout(timer); emitter.off('write', wake); done(); };
      const timer = setTimeout(wake, Math.max(1, Math.min(milliseconds, MAX_WAIT_MS)));
      emitter.on('write', wake);
    });
  }

  // Writes, and waits for a slow client: its backlog stays in the store, not in memory.
  async put(text) {
    if (!text || this.closed || this.response.write(text)) return;
    await new Promise((done) => {
      const go = () => { this.response.off('drain', go).off('close', go); done(); };
      this.response.on('drain', go).on('close', go);
    });
  }

  // CouchDB answers from a snapshot: what was written since the last read is not behind this answer.
  pending() {
    return this.atEnd || this.source.gone() ? 0 : this.source.pending(this.position);
  }
}

const ARRAY = {
  type: 'application/json',
  open: '{"results":[\n',
  row: (row, isFirst) => (isFirst ? '' : ',\r\n') + JSON.stringify(row),
  beat: '\n',
  close: (seq, pending) => `\n],\n"last_seq":${JSON.stringify(seq)},"pending":${pending}}\n`,
};
const FORMATS = {
  normal: ARRAY,
  longpoll: ARRAY,
  continuous: {
    type: 'application/json',
    open: '\n',
    row: (row) => JSON.stringify(row) + '\n',
    beat: '\n',
    close: (seq, pending) => JSON.stringify({ last_seq: seq, pending }) + '\n\n',
  },
  eventsource: {
    type: 'text/event-stream',
    open: '',
    row: (row, _, token) => `data: ${JSON.stringify(row)}\nid: ${JSON.stringify(token)}\n\n`,
    beat: 'event: heartbeat\ndata: \n\n',
    close: () => '',
  },
};

function readKind(feed = 'normal') {
  const kind = feed === 'live' ? 'continuous' : feed;
  if (!FORMATS[kind]) throw badRequest('Supported `feed` types: normal, continuous, live, longpoll, eventsource');
  return kind;
}

function readLimit(text) {
  if (text === undefined) return NO_LIMIT;
  if (!/^\d+$/.test(text)) throw new CouchError(500, 'unknown_error', 'badarg');
  return Number(text);
}

function readTimeout(text = MAX_WAIT_MS) {
  if (!/^\d+$/.test(text)) throw badRequest('invalid_integer');
  return Math.min(Number(text), MAX_WAIT_MS);
}

function readHeartbeat(text = 'false') {
  if (text === 'false') return 0;
  if (text === 'true') return MAX_WAIT_MS;
  if (!/^\d+$/.test(text)) throw badRequest('The heartbeat value should be a positive integer (in milliseconds).');
  return Math.min(Number(text), MAX_WAIT_MS);
}

module.exports = { Feed };
