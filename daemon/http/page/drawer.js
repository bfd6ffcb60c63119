// Describes the drawer: all that is known of one pillow, and the commands to type. It changes nothing itself.
import { h, shape } from "./dom.js";
import { ago, commands, count, countDatabases, describeBackfill, describeComparison, duration, moment, rate, splitReason, tailState } from "./format.js";
import { passShare } from "./pillows.js";
import { progress } from "./table.js";

/** Describe what is above the charts. `copied` is the command that was copied last, and "Copied". */
export function above({ facts }, copied) {
  return [
    h("div", { class: "drawer-head" },
      h("div", {}, h("h2", { id: "drawer-name", dir: "auto" }, facts.pillow), h("p", { class: "source", dir: "auto" }, facts.source)),
      h("button", { type: "button", class: "close", "aria-label": "Close" }, "×")),
    h("p", { class: "badge" }, shape(facts.state), facts.state),
    ...why(facts.reason),
    ...(isInTrouble(facts) ? typed(facts, copied) : []), // who has trouble looks for what to do first
    ...(facts.state === "catching-up" ? pass(facts) : []),
  ];
}

/** Describe what is below the charts. */
export function below({ facts }, copied, now) {
  const transports = facts.transports ?? [], past = (facts.history ?? []).toReversed();
  return [
    h("dl", { class: "numbers" }, numbers(facts, now).flatMap(([name, text]) => [h("dt", {}, name), h("dd", { dir: "auto" }, text)])),
    facts.databases && titled("Databases", databases(facts)),
    transports.length > 0 && titled("Targets",
      table(["Target", "Documents/s", "Last batch", "Delivered", "In flight"], transports.map((each) => [each.transport,
        rate(each.documents_per_second), duration(each.write_seconds), ago(each.delivered_at, now), count(each.in_flight)]), "num"),
      transports.filter(({ error }) => error).map((each) => h("p", { class: "failure", dir: "auto" },
        `Last error of ${each.transport}, ${ago(each.error_at, now)}: ${each.error}`))),
    past.length > 0 && titled("States, newest first",
      table(["At", "State", "Reason"], past.map((each) => [moment(each.at, now), each.state, each.reason]))),
    ...(isInTrouble(facts) ? [] : typed(facts, copied)),
  ].flat().filter(Boolean);
}

/** Describe the databases of a pillow that reads several: how many are in each state, and the worst of them. */
function databases({ databases: counts, worst_databases: worst }) {
  return [
    h("ul", { class: "tally" }, countDatabases(counts).map(([state, number]) =>
      h("li", { "data-state": tailState(state) }, shape(tailState(state)), `${count(number)} ${state}`))),
    worst?.length > 0 && h("ol", { class: "databases" }, worst.map(({ database, state, dirty_seconds: seconds, reason }) =>
      h("li", { "data-state": tailState(state) },
        h("b", { dir: "auto" }, database),
        h("span", {}, shape(tailState(state)), seconds == null ? state : `${state}, behind for ${duration(seconds)}`),
        reason && h("p", { dir: "auto" }, written(reason))))),
  ];
}

/** Return the facts of a pillow as [name, text]. */
function numbers(facts, now) {
  const { backfill, comparison, epoch, rebuild, pipeline_changed_at: changedAt } = facts;
  return [
    ["Behind", facts.pending == null ? "unknown" : count(facts.pending)],
    ["Lag", duration(facts.lag_seconds)],
    ["Rate", facts.changes_per_second == null ? "–" : `${rate(facts.changes_per_second)} / s`],
    ["Changes in all", count(facts.changes)],
    ["Dead letters", count(facts.dead_letters)],
    ["Restarts", count(facts.restarts)],
    ["Heard from the source", ago(facts.last_byte_at, now)],
    ["Checkpoint saved", ago(facts.checkpoint_at, now)],
    ["Epoch", epoch == null ? "–" : `${epoch}${facts.pass_number == null ? "" : " (in a pass)"}`],
    comparison && ["Verified", `${moment(comparison.at, now)}: ${describeComparison(comparison)}`],
    backfill && ["Backfill", describeBackfill(backfill)],
    rebuild?.other_key && ["Rebuild", [`${rebuild.state} since ${moment(rebuild.changed_at, now)}`, rebuild.reason].filter(Boolean).join(": ")],
    changedAt && ["Older filter or transform", `rows from before ${moment(changedAt, now)}`],
  ].filter(Boolean);
}

function isInTrouble(facts) {
  return Boolean(facts.reason) || !["live", "catching-up", "starting", "standby"].includes(facts.state);
}

function why(text) {
  const { reason, remedy } = splitReason(text);
  return [
    ...(reason ? titled("Reason", h("p", { class: "reason", dir: "auto" }, written(reason))) : []),
    ...(remedy ? titled("Remedy", h("p", { class: "remedy", dir: "auto" }, written(remedy))) : []),
  ];
}

/** Describe a text in which backticks enclose code. */
function written(text) {
  return text.split("`").map((words, index) => (index % 2 ? h("code", {}, words) : words));
}

function typed(facts, copied) {
  return titled("Commands to type", commands(facts).map(([command, purpose]) => h("div", { class: "command" }, h("p", {}, purpose),
    h("div", {}, h("code", {}, command), h("button", { type: "button", "aria-label": `Copy ${command}`, "data-command": command },
      copied.command === command ? copied.how : "Copy")))));
}

function pass(facts) {
  const share = passShare(facts);
  return titled("Progress", share == null ? null : h("progress", { value: share, max: 1, "aria-label": "Progress of the pass" }),
    h("p", {}, progress(facts)));
}

function titled(title, ...children) {
  return [h("h3", {}, title), ...children.flat().filter(Boolean)];
}

/** Describe a table; all columns but the first have a class. */
function table(heads, rows, rest) {
  const cells = (tag, texts) => h("tr", {}, texts.map((text, index) => h(tag, { dir: "auto", class: index ? rest : null }, text)));
  return rows.length > 0 && h("table", {}, h("thead", {}, cells("th", heads)), h("tbody", {}, rows.map((texts) => cells("td", texts))));
}
