// What is known of all pillows: the server's messages applied, ordered, summed up. Nothing here touches the page.

/** Points kept for each pillow: one per second, ten minutes. */
const POINTS = 600;

/** States from worst to best. */
const STATES = ["failed", "backing-off", "stopped", "starting", "paused", "catching-up", "standby", "live"];

/** The pillows, by key, as the messages of `/v1/events` describe them. Times are those of the daemon's clock. */
export class Pillows {
  constructor() {
    this.daemon = {};
    this.aheadSeconds = 0; // of the daemon's clock is this one
    this.byKey = new Map();
    this.times = [];
  }

  /** Return the daemon's time at a time of this clock. */
  daemonTime(now) {
    return now - this.aheadSeconds;
  }

  /** Apply a `status` message that arrived at a time of this clock. Return the announcements of changed states. */
  apply(message, received) {
    if (message.daemon) {
      this.aheadSeconds = received - message.daemon.at;
      this.daemon = { version: message.daemon.version, startedAt: message.daemon.at - message.daemon.up_seconds };
    }
    const said = [];
    for (const changed of message.pillows) {
      const key = keyOf(changed);
      const known = this.byKey.get(key) ?? { key, facts: {}, lag: [], rate: [] };
      if (changed.state && known.facts.state && known.facts.state !== changed.state) said.push(`${changed.pillow} is ${changed.state}`);
      Object.assign(known.facts, withMoments(changed, this.daemonTime(received)));
      this.byKey.set(key, known);
    }
    const listed = new Set(message.pillows.map(keyOf));
    const gone = message.complete ? [...this.byKey.keys()].filter((key) => !listed.has(key)) : message.gone;
    for (const key of gone) this.byKey.delete(key);
    return said;
  }

  /** Note a point of every pillow, once a second. */
  note(now) {
    push(this.times, now);
    for (const { facts, lag, rate } of this.byKey.values()) {
      push(lag, facts.pending ?? null);
      push(rate, facts.changes_per_second ?? null);
    }
  }

  /** Return how many seconds the lines span: whole minutes, as many as there are points for, ten at most. */
  span(now) {
    return 60 * Math.min(POINTS / 60, Math.max(1, Math.ceil((now - this.times[0]) / 60) || 1));
  }

  /** Return a pillow's points of one kind ("lag", "rate"), as [times, values]. */
  points(pillow, kind) {
    return [this.times.slice(this.times.length - pillow[kind].length), pillow[kind]];
  }

  /** Return the pillows whose name, source, state or reason has each word of a filter, worst first. */
  listed(filter) {
    const words = filter.toLowerCase().split(/\s+/);
    return [...this.byKey.values()].filter(({ key, facts }) => {
      const text = `${key} ${facts.state} ${facts.reason}`.toLowerCase();
      return words.every((word) => text.includes(word));
    }).sort(compareWorst);
  }
}

function keyOf(facts) {
  return `${facts.pillow}@${facts.source}`;
}

/** Return facts with moments instead of ages, which pass with the clock: the server does not send them again. */
function withMoments(facts, now) {
  return Object.fromEntries(Object.entries(facts).map(([name, value]) => (name.endsWith("_age_seconds")
    ? [name.replace("_age_seconds", "_at"), value == null ? null : now - value] : [name, value])));
}

function push(points, value) {
  points.push(value);
  if (points.length > POINTS) points.shift();
}

/** Return when the target that is worst off was last written to; null if one never was. */
export function deliveredAt({ transports = [] }) {
  const times = transports.map(({ delivered_at: at }) => at);
  return !times.length || times.includes(null) ? null : Math.min(...times);
}

/** Return how much of a first pass is done, between 0 and 1; null where the numbers do not say. */
export function passShare(facts) {
  if (facts.pass_number !== 1 || facts.pending == null || !facts.changes) return null;
  return facts.changes / (facts.changes + facts.pending);
}

/** Worst state first, then the greatest lag by orders of magnitude (so that rows rest), then by name. */
function compareWorst(a, b) {
  return rank(a) - rank(b) || magnitude(b) - magnitude(a) || (a.key < b.key ? -1 : 1);
}

function rank({ facts }) {
  const worst = STATES.indexOf(facts.state);
  return facts.state === "live" && facts.dead_letters ? worst - 0.5 : worst;
}

function magnitude({ facts }) {
  return Math.floor(Math.log10(1 + (facts.lag_seconds ?? 0)) + 0.5);
}

/** Return the number of pillows in each state that occurs, in the order of the pillows: [["failed", 1], ["live", 2]]. */
export function countStates(pillows) {
  const counts = new Map();
  for (const { facts } of pillows) counts.set(facts.state, (counts.get(facts.state) ?? 0) + 1);
  return [...counts];
}

/** Return one sentence that says how all is. */
export function verdict(counts) {
  const total = counts.reduce((sum, [, number]) => sum + number, 0);
  if (!total) return "No pillows";
  const [state, number] = counts[0];
  const who = number < total ? `${number} of ${total} pillows` : ["The pillow", "Both pillows"][total - 1] ?? `All ${total} pillows`;
  const verb = state === "failed" ? ["has", "have"] : ["is", "are"];
  return `${who} ${verb[number === 1 ? 0 : 1]} ${state}`;
}
