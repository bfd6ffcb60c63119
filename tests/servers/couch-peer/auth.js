// Who may come in: one administrator or everybody; by password or by a session's cookie.
'use strict';

const crypto = require('crypto');
const { CouchError } = require('./http');

const OPEN_PATHS = ['/', '/_up', '/_session'];
const FAILURES_BEFORE_LOCKOUT = 5; // since CouchDB 3.4
const LOCKOUT_MS = 300000;

const unauthorized = (reason) => new CouchError(401, 'unauthorized', reason);

class Auth {
  constructor(admin, sessionSeconds) {
    this.password = admin;
    this.name = admin ? admin.split(':')[0] : null;
    this.sessionSeconds = sessionSeconds;
    this.sessions = new Map(); // cookie -> when it expires
    this.failures = [];
  }

  // Returns the user's name (null is anonymous), or throws.
  check(exchange) {
    if (!this.password) return null;
    const { authorization = '', cookie = '' } = exchange.request.headers;
    if (authorization.startsWith('Basic ')) return this.checkPassword(decodeBasic(authorization));
    const session = /AuthSession=([^;]+)/.exec(cookie);
    if (session && this.sessions.get(session[1]) > Date.now()) return this.name;
    if (OPEN_PATHS.includes(exchange.path)) return null;
    throw unauthorized('You are not authorized to access this db.');
  }

  // A locked account is refused even with the right password.
  checkPassword(given) {
    this.failures = this.failures.filter((time) => time > Date.now() - LOCKOUT_MS);
    if (this.failures.length >= FAILURES_BEFORE_LOCKOUT) {
      throw new CouchError(403, 'forbidden', 'Account is temporarily locked due to multiple authentication failures');
    }
    if (given === this.password) return this.name;
    this.failures.push(Date.now());
    throw unauthorized('Name or password is incorrect.');
  }

  addRoutes(router) {
    router.add('GET', '/_session', (exchange) => exchange.send(this.describe(exchange)));
    router.add('POST', '/_session', (exchange) => this.logIn(exchange));
    router.add('DELETE', '/_session', (exchange) => exchange.send({ ok: true }, 200, cookieHeader('', 0)));
  }

  describe(exchange) {
    const isAdmin = !this.password || exchange.user !== null;
    const userCtx = { name: exchange.user, roles: isAdmin ? ['_admin'] : [] };
    return { ok: true, userCtx, info: { authentication_handlers: ['cookie', 'default'] } };
  }

  async logIn(exchange) {
    const { name: given, username, password } = await readCredentials(exchange);
    const name = given ?? username;
    if (this.password) this.checkPassword(`${name}:${password}`);
    const cookie = crypto.randomBytes(24).toString('base64url');
    this.sessions.set(cookie, Date.now() + this.sessionSeconds * 1000);
    exchange.send({ ok: true, name, roles: ['_admin'] }, 200, cookieHeader(cookie, this.sessionSeconds));
  }
}

const decodeBasic = (header) => Buffer.from(header.slice(6), 'base64').toString();

async function readCredentials(exchange) {
  if (!/urlencoded/.test(exchange.request.headers['content-type'] || '')) return exchange.jsonBody();
  return Object.fromEntries(new URLSearchParams((await exchange.body()).toString()));
}

function cookieHeader(cookie, seconds) {
  return { 'Set-Cookie': `AuthSession=${cookie}; Version=1; Path=/; Max-Age=${seconds}; HttpOnly` };
}

module.exports = { Auth };
