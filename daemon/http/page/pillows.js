// What is known of all pillows: the server's messages applied, ordered, summed up. Nothing here touches the page.

/** Points kept for each pillow: one a second, ten minutes. */
export const POINTS = 600;

/** States from worst to best. */
export const STATES = ["failed", "backing-off", "stopped", "starting", "paused", "catching-up", "standby", "live"];

/** The pillows, by key, as the messages of `/v1/events` describe them. */
export class Pillows {
  constructor() {
    this.daemon = {};
    this.byKey = new Map();
    this.times = new Float64Array(POINTS).fill(NaN);
    this.at = 0; // the index of the next point
  }

  /** Apply a `status` message that arrived at a time (in seconds). Return the announcements of changed states. */
  apply(message, now) {
    const said = [];
    // How much this clock is ahead of the daemon's, whose times are in its messages.
    if (message.daemon) this.daemon = { ...message.daemon, received: now, ahead: now - message.daemon.at };
    for (const facts of message.pillows ?? []) {
      const key = keyOf(facts);
      const known = this.byKey.get(key);
      if (known && facts.state && known.facts.state !== facts.state) said.push(`${facts.pillow} is ${facts.state}`);
      const pillow = known ?? { key, facts: {}, since: {}, lag: empty(), rate: empty() };
      Object.assign(pillow.facts, facts);
      for (const name of Object.keys(facts)) if (name.endsWith("_age_seconds")) pillow.since[name] = now - facts[name];
      this.byKey.set(key, pillow);
    }
    const listed = message.complete ? new Set(message.pillows.map(keyOf)) : null;
    for (const key of listed ? [...this.byKey.keys()].filter((each) => !listed.has(each)) : message.gone ?? []) {
      this.byKey.delete(key);
    }
    return said;
  }

  /** Note a point of every pillow, once a second. */
  note(now) {
    this.times[this.at] = now;
    for (const pillow of this.byKey.values()) {
      pillow.lag[this.at] = pillow.facts.pending ?? NaN;
      pillow.rate[this.at] = pillow.facts.changes_per_second ?? NaN;
    }
    this.at = (this.at + 1) % POINTS;
  }

  /** Return how many seconds the lines span: whole minutes, as many as there are points for, ten at most. */
  span(now) {
    const first = this.times[Number.isNaN(this.times[this.at]) ? 0 : this.at];
    return 60 * Math.min(POINTS / 60, Math.max(1, Math.ceil((now - first) / 60) || 1));
  }

  /** Return the points of one kind ("lag", "rate") in their order, as [times, values]. */
  points(pillow, kind) {
    const times = [], values = [];
    for (let step = 0; step < POINTS; step++) {
      const index = (this.at + step) % POINTS;
      if (!Number.isNaN(this.times[index])) {
        times.push(this.times[index]);
        values.push(Number.isNaN(pillow[kind][index]) ? null : pillow[kind][index]);
      }
    }
    return [times, values];
  }

  /** Return the pillows that a filter text finds, worst first. */
  listed(filter) {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    return [...this.byKey.values()].filter((each) => matches(each.facts, words)).sort(compareWorst);
  }
}

/** Return what identifies a pillow's tail. */
export function keyOf(facts) {
  return `${facts.pillow}@${facts.source}`;
}

/** Return an age as it is now. It passes with the clock; the server sends it only when it does not. */
export function ageNow({ facts, since }, name, now) {
  return facts[name] == null ? null : Math.max(0, now - since[name]);
}

/** Return the time since the target that is worst off was last written to; null if one never was. */
export function deliveryAge({ facts }, now) {
  const times = (facts.transports ?? []).map(({ delivered_at: at }) => at);
  return !times.length || times.includes(null) ? null : Math.max(0, now - Math.min(...times));
}

/** Return how much of a first pass is done, between 0 and 1; null where the numbers do not say. */
export function passShare(facts) {
  if (facts.pass_number !== 1 || facts.pending == null || !facts.changes) return null;
  return facts.changes / (facts.changes + facts.pending);
}

/** Return whether each word is in the name, source, state or reason. */
function matches(facts, words) {
  const text = `${facts.pillow} ${facts.source} ${facts.state} ${facts.reason}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Worst state first, then the greatest lag by orders of magnitude (so that rows rest), then by name. */
export function compareWorst(a, b) {
  return rank(a) - rank(b) || magnitude(b) - magnitude(a) || (a.key < b.key ? -1 : 1);
}

function rank({ facts }) {
  const worst = STATES.indexOf(facts.state);
  return facts.state === "live" && facts.dead_letters ? worst - 0.5 : worst;
}

function magnitude({ facts }) {
  return Math.floor(Math.log10(1 + (facts.lag_seconds ?? 0)) + 0.5);
}

/** Return the number of pillows in each state that occurs, worst first: [["failed", 1], ["live", 2]]. */
export function countStates(pillows) {
  const counts = new Map();
  for (const { facts } of pillows) counts.set(facts.state, (counts.get(facts.state) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => STATES.indexOf(a) - STATES.indexOf(b));
}

/** Return one sentence that says how all is. */
export function verdict(counts) {
  const total = counts.reduce((sum, [, number]) => sum + number, 0);
  if (!total) return "No pillows";
  const [worst, number] = counts[0];
  const verb = worst === "failed" ? ["has", "have"] : ["is", "are"];
  if (number === total) return `${total === 1 ? "The pillow" : total === 2 ? "Both pillows" : `All ${total} pillows`} ${verb[total === 1 ? 0 : 1]} ${worst}`;
  return `${number} of ${total} pillows ${verb[number === 1 ? 0 : 1]} ${worst}`;
}

function empty() {
  return new Float32Array(POINTS).fill(NaN);
}
