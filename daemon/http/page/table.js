// Describes the table's rows: one for each pillow.
import { line } from "./charts.js";
import { h, shape } from "./dom.js";
import { ago, count, duration, percent, problemOf, problemOfDatabases, rate, worstState } from "./format.js";
import { deliveredAt, passShare } from "./pillows.js";

/** Describe the row of a pillow. `points(kind)` returns those of its lines. */
export function row({ key, facts }, { points, now, span, isSelected }) {
  const reason = problemOf(facts.reason) || problemOfDatabases(facts.databases);
  const marks = [isSelected && "selected", facts.lag_seconds >= 60 && "behind", facts.dead_letters > 0 && "has-dead"];
  const cell = (name, ...children) => h("td", { class: `c-${name}`, role: "cell" }, ...children);
  return h("tr", { key, role: "row", "data-key": key, "data-state": facts.state, class: marks.filter(Boolean).join(" ") },
    cell("state", h("b", {}, shape(facts.state), facts.state), h("small", {}, remark(facts, now))),
    cell("pillow", h("button", { type: "button", class: "name" }, facts.pillow),
      h("small", { dir: "auto", title: facts.source }, facts.source)),
    cell("lag num", h("span", {}, count(facts.pending)),
      h("small", {}, facts.lag_seconds == null ? "" : duration(facts.lag_seconds))),
    cell("spark lag-line", line(points("lag"), now, span)),
    cell("rate num", rate(facts.changes_per_second)),
    cell("spark rate-line", line(points("rate"), now, span)),
    cell("delivery num", ago(deliveredAt(facts), now)),
    cell("dead num", count(facts.dead_letters)),
    cell("reason", h("span", { dir: "auto", title: reason, "data-state": facts.reason ? null : worstState(facts.databases) }, reason)));
}

/** Return what stands under a state: how far a pillow that catches up has come, else how long the state has lasted. */
export function remark(facts, now) {
  if (facts.state === "catching-up" && facts.seconds_to_go != null) return progress(facts);
  if (facts.backfill?.seconds_to_go != null) return `backfill, ${duration(facts.backfill.seconds_to_go)} to go`;
  const last = facts.history?.at(-1);
  return last ? `for ${duration(Math.max(0, now - last.at))}` : "";
}

/** Return how far a pass has come: "41 %, 3m to go". */
export function progress(facts) {
  const share = passShare(facts);
  const left = facts.seconds_to_go == null ? "" : `${duration(facts.seconds_to_go)} to go`;
  return [share == null ? "" : percent(share), left].filter(Boolean).join(", ");
}
