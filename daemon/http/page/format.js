// Turns facts into text. Pure functions: nothing here touches the page.

const UNITS = [["d", 86400, Infinity], ["h", 3600, 24], ["m", 60, 60], ["s", 1, 60]];
// What a browser hides or obeys: controls, marks that reverse the direction, invisible characters, lone surrogates.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Return text with every character escaped that would not be seen as what it is. */
export function printable(text) {
  return String(text).replace(UNSAFE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Return a whole number with its thousands grouped; a dash if it is not known. */
export function count(value) {
  return value == null ? "–" : String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Return a rate per second: one decimal below ten, so that a slow pillow does not look idle. */
export function rate(value) {
  if (value == null) return "–";
  if (value > 0 && value < 0.05) return "<0.1";
  return value < 9.95 && value % 1 ? value.toFixed(1) : count(Math.round(value));
}

/** Return a duration in its two largest units: "3h 12m". */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds > 0 && seconds < 0.95) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  const whole = Math.max(0, Math.round(seconds));
  const parts = UNITS.map(([unit, size, most]) => [Math.floor(whole / size) % most, unit]);
  const largest = parts.slice(parts.findIndex(([number]) => number)).slice(0, 2);
  return largest.filter(([number]) => number).map((part) => part.join("")).join(" ") || "0s";
}

/** Return the age of a moment: "3h 12m ago"; "now" within a second. Both in seconds since 1970, as everywhere. */
export function ago(at, now) {
  if (at == null) return "–";
  return now - at < 1.5 ? "now" : `${duration(now - at)} ago`;
}

/** Return the time of day of a moment, with its date unless that is today. */
export function moment(at, now) {
  const [day, time] = new Date(at * 1000).toLocaleString("sv").split(" "); // Sweden writes it as ISO 8601 does
  return new Date(now * 1000).toLocaleString("sv").startsWith(day) ? time : `${day} ${time}`;
}

/** Return a share between 0 and 1 in per cent; never 100 % before it is done. */
export function percent(share) {
  return `${Math.floor(share * 100)} %`;
}

/** Return how far a backfill is. */
export function describeBackfill({ state, done, documents, per_second, seconds_to_go }) {
  const sent = `${state}, ${count(done)}${documents == null ? "" : ` of ${count(documents)}`} documents`;
  return state === "running" ? `${sent}, ${rate(per_second)} / s, ${duration(seconds_to_go)} to go` : sent;
}

/** Say what a comparison with the source found. */
export function describeComparison({ differences, repaired, reason }) {
  if (reason) return `failed: ${reason}`;
  const found = Object.entries(differences).flatMap(([transport, kinds]) => Object.entries(kinds)
    .filter(([, number]) => number).map(([kind, number]) => `${count(number)} ${kind} in ${transport}`));
  return found.join(", ") || (repaired ? `equal, ${count(repaired)} repaired` : "equal");
}

/** Divide a reason into the problem and its remedy. */
export function splitReason(text) {
  const [reason, ...rest] = text.split("Remedy:");
  const remedy = rest.join("Remedy:").trim();
  return { reason: reason.trim(), remedy: remedy.charAt(0).toUpperCase() + remedy.slice(1) };
}

/** Return the problem in a reason, as one plain line. */
export function problemOf(text) {
  return splitReason(text).reason.replaceAll("`", "");
}

/** Return the commands that help with a pillow, each as [command, what it does], the most urgent first. */
export function commands(facts) {
  const key = quoted(`${facts.pillow}@${facts.source}`), { state } = facts;
  const kinds = Object.values(facts.comparison?.differences ?? {}).flatMap(Object.values);
  return [...new Map([
    ...[...facts.reason.matchAll(/`(pillowd [^`]+)`/g)].map(([, command]) => [command, "as the reason says"]),
    (state === "failed" || state === "stopped") && [`pillowd restart ${key}`, "start it again"],
    state === "backing-off" && [`pillowd restart ${key}`, "retry now"],
    state === "paused" && [`pillowd resume ${key}`, "end the pause"],
    problemOfDatabases(facts.databases) && [`pillowd databases ${key}`, "see which databases need somebody, and why"],
    facts.dead_letters && [`pillowd dead-letter list ${key}`, "see what could not be written, and why"],
    facts.dead_letters && [`pillowd dead-letter retry ${key} --all`, "retry it once the cause is mended"],
    (state === "live" || state === "catching-up") && [`pillowd tap ${key}`, "watch changes pass"],
    kinds.some((number) => number > 0) && [`pillowd verify ${key} --repair`, "write what differs again"],
    [`pillowd verify ${key}`, "compare the target with the source"],
  ].filter(Boolean))];
}

/** Return a word as a shell takes it. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

// The states of one of several databases, the worst first, and the state of a tail that each is like.
const DATABASE_STATES = new Map([["failed", "failed"], ["backing-off", "backing-off"], ["paused", "paused"],
  ["queued", "catching-up"], ["active", "catching-up"], ["deleted", "stopped"], ["parked", "live"]]);

/** Return the state of a tail that the state of one of several databases is like. */
export function tailState(state) {
  return DATABASE_STATES.get(state) ?? "starting";
}

/** Return [state, number] of the databases of a pillow, the worst first. */
export function countDatabases(counts) {
  return [...DATABASE_STATES.keys()].filter((state) => counts?.[state] > 0).map((state) => [state, counts[state]]);
}

/** Return the worst state that any database of a pillow is in; none of a pillow on one database. */
export function worstState(counts) {
  return countDatabases(counts)[0]?.[0];
}

/** Return how many databases of a pillow somebody should look at, and "" if there are none. */
export function problemOfDatabases(counts) {
  const bad = countDatabases(counts).filter(([state]) => ["failed", "backing-off"].includes(state));
  const total = Object.values(counts ?? {}).reduce((sum, number) => sum + number, 0);
  return bad.length ? `${bad.map(([state, number]) => `${count(number)} ${state}`).join(", ")} of ${count(total)} databases` : "";
}
