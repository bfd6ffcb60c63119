// What every route needs: errors with CouchDB's names, a request with decoded parts, a table of routes.
'use strict';

const zlib = require('zlib');

const MAX_BODY_BYTES = 256 * 1024 * 1024;

class CouchError extends Error {
  constructor(status, name, reason) {
    super(reason);
    Object.assign(this, { status, name, reason });
  }
}

const badRequest = (reason) => new CouchError(400, 'bad_request', reason);
const notFound = (reason) => new CouchError(404, 'not_found', reason);

// One exchange: what a handler gets.
class Exchange {
  constructor(request, response, url) {
    this.request = request;
    this.response = response;
    this.method = request.method;
    this.path = url.pathname;
    this.query = Object.fromEntries(url.searchParams);
    this.params = {};
  }

  flag(name) {
    return this.query[name] === 'true';
  }

  // A query parameter that is written as JSON, such as startkey.
  jsonParam(name) {
    if (this.query[name] === undefined) return undefined;
    return parseJson(this.query[name], `Invalid value for ${name}.`);
  }

  async body() {
    const parts = [];
    let size = 0;
    for await (const part of this.request) {
      size += part.length;
      if (size > MAX_BODY_BYTES) throw new CouchError(413, 'too_large', 'the request entity is too large');
      parts.push(part);
    }
    const bytes = Buffer.concat(parts);
    return this.request.headers['content-encoding'] === 'gzip' ? zlib.gunzipSync(bytes) : bytes;
  }

  async jsonBody() {
    return parseJson((await this.body()).toString(), 'invalid UTF-8 JSON');
  }

  send(body, status = 200, headers = {}) {
    const text = Buffer.from(JSON.stringify(body) + '\n');
    this.response.writeHead(status, {
      'Content-Type': 'application/json', 'Content-Length': text.length, 'Cache-Control': 'must-revalidate', ...headers,
    });
    this.response.end(this.method === 'HEAD' ? undefined : text);
  }

  // Once a feed has begun, CouchDB can only break the connection, too.
  sendError(error) {
    if (this.response.headersSent) return this.response.destroy();
    if (!error.status) console.error(error);
    const reason = error.reason || error.message;
    return this.send({ error: error.name || 'unknown_error', reason }, error.status || 500, error.headers);
  }
}

// CouchDB's parser takes no half of a surrogate pair, JavaScript's does. Few texts have any, so few are read slowly.
const SURROGATE_ESCAPE = /\\u[dD][89a-fA-F]/;
const HALF_A_PAIR = /\p{Surrogate}/u;

function parseJson(text, reason) {
  try {
    return JSON.parse(text, SURROGATE_ESCAPE.test(text) ? refuseHalves : undefined);
  } catch {
    throw badRequest(reason);
  }
}

function refuseHalves(key, value) {
  if (HALF_A_PAIR.test(key) || (typeof value === 'string' && HALF_A_PAIR.test(value))) throw new SyntaxError('half a pair');
  return value;
}

function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    throw badRequest('malformed path');
  }
}

// Routes are patterns such as "/:db/_design/:name"; the first that matches wins.
class Router {
  constructor() {
    this.routes = [];
  }

  add(methods, pattern, handler) {
    this.routes.push({ methods: methods.split(' '), parts: pattern.split('/').slice(1), handler });
  }

  async handle(request, response, auth) {
    const exchange = new Exchange(request, response, new URL(request.url, 'http://localhost'));
    try {
      exchange.user = auth.check(exchange);
      await this.find(exchange)(exchange);
    } catch (error) {
      request.resume(); // what is left of the body must not be taken for the next request
      exchange.sendError(error);
    }
  }

  find(exchange) {
    const parts = exchange.path.replace(/(.)\/$/, '$1').split('/').slice(1).map(decodePart);
    const fitting = this.routes.filter((route) => match(route.parts, parts));
    if (!fitting.length) throw notFound('missing');
    const found = fitting.find((route) => route.methods.includes(exchange.method));
    if (!found) {
      throw new CouchError(405, 'method_not_allowed', `Only ${fitting.flatMap((r) => r.methods).join(',')} allowed`);
    }
    exchange.params = match(found.parts, parts);
    return found.handler;
  }
}

// Returns the named parts of a path, or null; ":db" and ":id" do not match names that begin with "_",
// save for the system databases.
function match(pattern, parts) {
  if (pattern.length !== parts.length) return null;
  const params = {};
  for (const [index, expected] of pattern.entries()) {
    const part = parts[index];
    if (!expected.startsWith(':')) {
      if (expected !== part) return null;
    } else if (isReserved(expected, part)) {
      return null;
    } else {
      params[expected.slice(1)] = part;
    }
  }
  return params;
}

function isReserved(expected, part) {
  return part.startsWith('_') && [':db', ':id'].includes(expected) && !/^_(users|replicator|global_changes)$/.test(part)
    && !/^_(design|local)\//.test(part);
}

module.exports = { CouchError, Router, badRequest, notFound };
