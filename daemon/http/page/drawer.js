// The drawer: all that is known of one pillow, and the commands to type. It changes nothing itself.
import { chart, feedChart } from "./charts.js";
import { element, setText, shape } from "./dom.js";
import { ago, codeParts, commands, count, describeComparison, duration, moment, percent, printable, rate, splitReason } from "./format.js";
import { ageNow, passShare } from "./pillows.js";

export class Drawer {
  /** `panel` is the drawer's element; `closed()` is called when it is closed by its own button. */
  constructor(panel, closed) {
    this.panel = panel;
    this.close = closed;
    this.key = null;
    this.plots = [];
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#remake());
    addEventListener("resize", () => this.plots.forEach(({ plot, box }) => plot.setSize({ width: box.clientWidth, height: plot.height })));
  }

  /** Show a pillow; nothing hides the drawer. */
  show(pillow, pillows, now) {
    this.panel.hidden = !pillow;
    document.body.classList.toggle("with-drawer", Boolean(pillow));
    if (!pillow) this.key = null;
    if (!pillow) return;
    const shown = `${pillow.key} ${isInTrouble(pillow.facts)}`;
    if (this.key !== shown) this.#build(pillow);
    this.key = shown;
    this.#write(pillow, now, now - (pillows.daemon.ahead ?? 0));
    for (const { plot, kind } of this.plots) feedChart(plot, pillows.points(pillow, kind), now, pillows.span(now));
  }

  #remake() {
    this.key = null; // the next `show` builds it in the other colours
  }

  #build({ facts }) {
    const close = element("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
    close.addEventListener("click", this.close);
    this.parts = {};
    const part = (name, tag = "div") => (this.parts[name] = element(tag, { class: name }));
    const charts = element("section", {}, element("h3", {}, "Changes behind"), element("div", { class: "chart" }),
      element("h3", {}, "Changes per second"), element("div", { class: "chart" }));
    this.panel.replaceChildren(
      element("div", { class: "drawer-head" }, element("div", {},
        element("h2", { id: "drawer-name", dir: "auto" }, printable(facts.pillow)),
        element("p", { class: "source", dir: "auto" }, printable(facts.source))), close),
      part("badge", "p"), part("why", "section"), part("progress", "section"), charts,
      part("numbers", "dl"), part("databases", "section"), part("targets", "section"), part("past", "section"));
    // Who has trouble looks for what to do first.
    (isInTrouble(facts) ? this.parts.progress : this.parts.past).before(part("type", "section"));
    const [lag, speed] = charts.querySelectorAll(".chart");
    for (const { plot } of this.plots) plot.destroy();
    this.plots = [[lag, "lag"], [speed, "rate"]].map(([box, kind]) => ({ box, kind, plot: chart(box, kind, kind) }));
    this.panel.scrollTop = 0;
  }

  #write(pillow, now, daemonNow) {
    const { facts } = pillow;
    this.panel.dataset.state = facts.state;
    this.#renew("badge", [facts.state], () => [shape(facts.state), facts.state]);
    this.#renew("why", [facts.reason], () => why(facts.reason));
    this.#renew("type", [facts.reason, facts.state, facts.dead_letters > 0, facts.comparison], () => [
      element("h3", {}, "Commands to type"), ...commands(facts).map(typed)]);
    const share = facts.state === "catching-up" ? passShare(facts) : null;
    this.#renew("progress", [share, facts.state === "catching-up" && facts.seconds_to_go], () => progress(facts, share));
    this.#renew("numbers", [...numbers(pillow, now)].flat(), () => [...numbers(pillow, now)].flatMap(([name, value]) =>
      [element("dt", {}, name), element("dd", { dir: "auto" }, value)]));
    const targets = (facts.transports ?? []).map((each) => targetRow(each, daemonNow));
    const failures = (facts.transports ?? []).filter(({ error }) => error).map((each) =>
      element("p", { class: "failure", dir: "auto" }, `Last error of ${printable(each.transport)}, ${ago(daemonNow - each.error_at)}: ${printable(each.error)}`));
    const worst = (facts.worst_databases ?? []).map((each) =>
      [printable(each.database), each.state, duration(each.dirty_seconds), printable(each.reason)]);
    this.#renew("databases", [facts.databases, worst], () => databases(facts, worst));
    this.#renew("targets", [targets, failures.map((each) => each.textContent)], () => (targets.length
      ? [element("h3", {}, "Targets"), table(TARGET_HEADS, targets), ...failures] : []));
    const past = (facts.history ?? []).toReversed().map((each) => [moment(each.at, daemonNow), each.state, printable(each.reason)]);
    this.#renew("past", past.flat(), () => (past.length ? [element("h3", {}, "States, newest first"), table(PAST_HEADS, past)] : []));
  }

  /** Make a part anew if what it is made of differs: a selected text or a focus in it is not lost each second. */
  #renew(name, madeOf, make) {
    const node = this.parts[name], said = JSON.stringify(madeOf);
    if (node.said === said) return;
    node.said = said;
    node.replaceChildren(...make());
  }
}

function isInTrouble(facts) {
  return Boolean(facts.reason) || !["live", "catching-up", "starting", "standby"].includes(facts.state);
}

const TARGET_HEADS = ["Target", "Documents/s", "Last batch", "Delivered", "In flight"];
const PAST_HEADS = ["At", "State", "Reason"];

const DATABASE_HEADS = ["Database", "State", "Waits for", "Reason"];

function databases(facts, worst) {
  if (!facts.databases) return [];
  const counts = Object.entries(facts.databases).map(([state, number]) => `${count(number)} ${state}`).join(", ");
  return [element("h3", {}, "Databases"), element("p", {}, counts), ...(worst.length ? [table(DATABASE_HEADS, worst)] : [])];
}

function why(text) {
  const { reason, remedy } = splitReason(text);
  const written = (part) => codeParts(part).map(([kind, words]) => (kind === "code" ? element("code", {}, printable(words)) : printable(words)));
  return [
    ...(reason ? [element("h3", {}, "Reason"), element("p", { class: "reason", dir: "auto" }, ...written(reason))] : []),
    ...(remedy ? [element("h3", {}, "Remedy"), element("p", { class: "remedy", dir: "auto" }, ...written(remedy))] : []),
  ];
}

function typed([command, purpose]) {
  const code = element("code", {}, printable(command));
  const copy = element("button", { type: "button", "aria-label": `Copy ${printable(command)}` }, "Copy");
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(code); // all there is where the clipboard is closed to a page without TLS
    await navigator.clipboard?.writeText(command);
    setText(copy, navigator.clipboard ? "Copied" : "Selected");
    setTimeout(() => setText(copy, "Copy"), 1500);
  });
  return element("div", { class: "command" }, element("p", {}, purpose), element("div", {}, code, copy));
}

function progress(facts, share) {
  if (facts.state !== "catching-up") return [];
  const left = facts.seconds_to_go == null ? "" : `${duration(facts.seconds_to_go)} to go`;
  const bar = share == null ? [] : [element("progress", { value: share, max: 1, "aria-label": "Progress of the pass" })];
  return [element("h3", {}, "Progress"), ...bar, element("p", {}, [share == null ? "" : percent(share), left].filter(Boolean).join(", "))];
}

/** Yield the facts of a pillow as [name, text]. */
export function* numbers(pillow, now) {
  const { facts } = pillow;
  yield ["Behind", facts.pending == null ? "unknown" : count(facts.pending)];
  yield ["Lag", duration(facts.lag_seconds)];
  yield ["Rate", facts.changes_per_second == null ? "–" : `${rate(facts.changes_per_second)} / s`];
  yield ["Changes in all", count(facts.changes)];
  yield ["Dead letters", count(facts.dead_letters)];
  yield ["Restarts", count(facts.restarts)];
  yield ["Heard from the source", ago(ageNow(pillow, "last_byte_age_seconds", now))];
  yield ["Checkpoint saved", ago(ageNow(pillow, "checkpoint_age_seconds", now))];
  yield ["Epoch", facts.epoch == null ? "–" : `${facts.epoch}${facts.pass_number == null ? "" : " (in a pass)"}`];
  if (facts.comparison) yield ["Verified", `${moment(facts.comparison.at, now)}: ${describeComparison(facts.comparison)}`];
  if (facts.pipeline_changed_at) yield ["Older filter or transform", `rows from before ${moment(facts.pipeline_changed_at, now)}`];
}

function targetRow(facts, now) {
  const age = facts.delivered_at == null ? null : Math.max(0, now - facts.delivered_at);
  return [printable(facts.transport), rate(facts.documents_per_second), duration(facts.write_seconds), ago(age), count(facts.in_flight)];
}

function table(heads, rows) {
  const last = heads.length - 1, numeric = (index) => heads === TARGET_HEADS && index > 0;
  const cell = (tag, index, text) => element(tag, { class: numeric(index) ? "num" : null, dir: index === last && !numeric(index) ? "auto" : null }, text);
  return element("table", {}, element("thead", {}, element("tr", {}, ...heads.map((head, index) => cell("th", index, head)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((text, index) => cell("td", index, text))))));
}
