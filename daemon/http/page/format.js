// Turns facts into text. Pure functions: nothing here touches the page.

const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
// What a browser hides or obeys: controls, marks that reverse the direction, invisible characters, lone surrogates.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Return text with every character escaped that would not be seen as what it is. */
export function printable(text) {
  return String(text).replace(UNSAFE, (c) =>
    `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Return a whole number with its thousands grouped; a dash if it is not known. */
export function count(value) {
  return value == null ? "–" : String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Return a rate a second: one decimal below ten, so that a slow pillow does not look idle. */
export function rate(value) {
  if (value == null) return "–";
  if (value > 0 && value < 0.05) return "<0.1";
  return value < 9.95 && value % 1 ? value.toFixed(1) : count(Math.round(value));
}

/** Return a duration in its two largest units: "3h 12m". */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds > 0 && seconds < 0.95) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [size, unit] of UNITS) {
    const whole = Math.floor(rest / size);
    rest -= whole * size;
    if (whole || (unit === "s" && !parts.length)) parts.push(`${whole}${unit}`);
    else if (parts.length) break;
  }
  return parts.slice(0, 2).join(" ");
}

/** Return an age: "3h 12m ago"; "now" within a second. */
export function ago(seconds) {
  if (seconds == null) return "–";
  return seconds < 1.5 ? "now" : `${duration(seconds)} ago`;
}

/** Return the time of day of a moment, with its date unless that is today. Both in seconds since 1970. */
export function moment(at, now) {
  const when = new Date(at * 1000);
  const time = when.toTimeString().slice(0, 8);
  return when.toDateString() === new Date(now * 1000).toDateString() ? time : `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${time}`;
}

function two(number) {
  return String(number).padStart(2, "0");
}

/** Return a share between 0 and 1 in per cent; never 100 % before it is done. */
export function percent(share) {
  return `${Math.floor(share * 100)} %`;
}

/** Say what a comparison with the source found. */
export function describeComparison({ differences, repaired, reason }) {
  if (reason) return `failed: ${printable(reason)}`;
  const found = Object.entries(differences).flatMap(([transport, kinds]) => Object.entries(kinds)
    .filter(([, number]) => number).map(([kind, number]) => `${count(number)} ${kind} in ${printable(transport)}`));
  if (found.length) return found.join(", ");
  return repaired ? `equal, ${count(repaired)} repaired` : "equal";
}

/** Divide a reason into the problem and its remedy. */
export function splitReason(text) {
  const at = text.indexOf("Remedy:");
  if (at < 0) return { reason: text, remedy: "" };
  const remedy = text.slice(at + "Remedy:".length).trim();
  return { reason: text.slice(0, at).trim(), remedy: remedy.charAt(0).toUpperCase() + remedy.slice(1) };
}

/** Divide a text at its backticks: [["plain", ...], ["code", ...]]. */
export function codeParts(text) {
  return text.split("`").map((part, number) => [number % 2 ? "code" : "plain", part]).filter(([, part]) => part);
}

/** Return the commands that help with a pillow, each as [command, what it does], the most urgent first. */
export function commands(pillow) {
  const key = quoted(`${pillow.pillow}@${pillow.source}`);
  const named = [...pillow.reason.matchAll(/`(pillowd [^`]+)`/g)].map(([, command]) => [command, "as the reason says"]);
  const found = [...named];
  if (["failed", "stopped"].includes(pillow.state)) found.push([`pillowd restart ${key}`, "start it again"]);
  if (pillow.state === "backing-off") found.push([`pillowd restart ${key}`, "retry now"]);
  if (pillow.state === "paused") found.push([`pillowd resume ${key}`, "end the pause"]);
  if (pillow.dead_letters) {
    found.push([`pillowd dead-letter list ${key}`, "see what could not be written, and why"]);
    found.push([`pillowd dead-letter retry ${key} --all`, "retry it once the cause is mended"]);
  }
  if (["live", "catching-up"].includes(pillow.state)) found.push([`pillowd tap ${key}`, "watch changes pass"]);
  const kinds = Object.values(pillow.comparison?.differences ?? {}).flatMap(Object.values);
  if (kinds.some((number) => number > 0)) found.push([`pillowd verify ${key} --repair`, "write what differs again"]);
  found.push([`pillowd verify ${key}`, "compare the target with the source"]);
  return found.filter(([command], at) => found.findIndex(([other]) => other === command) === at);
}

/** Return a word as a shell takes it. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
