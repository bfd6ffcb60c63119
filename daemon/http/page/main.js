// The page: what the daemon says becomes rows, a verdict and a drawer, once a second.
import { draw } from "./charts.js";
import { h, render, shape } from "./dom.js";
import { above, below } from "./drawer.js";
import { count, duration, moment, problemOf, rate } from "./format.js";
import { Pillows, countStates, verdict } from "./pillows.js";
import { follow } from "./stream.js";
import { row } from "./table.js";

const EVENTS = 12;
const byId = (id) => document.getElementById(id);
const filter = byId("filter"), drawer = byId("drawer"), rows = byId("rows");
export const pillows = new Pillows();
let events = [], heardAt = null, lostAt = null, selected = keyInAddress(), copied = {};

const now = () => pillows.daemonTime(Date.now() / 1000);

follow("v1/events", {
  status(message) {
    const said = pillows.apply(message, Date.now() / 1000);
    heardAt = now();
    lostAt = null;
    if (said.length) render(byId("announcer"), said.slice(0, 5).join(". "));
    if (said.length || message.complete) show(); // the rest waits for the next second
  },
  event(event) {
    if (event.number > (events[0]?.number ?? 0)) events = [event, ...events].slice(0, EVENTS); // others come again after a break
  },
  lost() {
    lostAt ??= now();
    show();
  },
});

setInterval(() => {
  if (lostAt == null) pillows.note(now());
  show();
}, 1000);

function show() {
  const at = lostAt ?? now(), span = pillows.span(at), listed = pillows.listed(filter.value);
  document.body.dataset.connection = !heardAt ? "connecting" : lostAt == null ? "live" : "lost";
  showOverview(at);
  rows.parentElement.hidden = !listed.length;
  render(rows, ...listed.map((pillow) => row(pillow, {
    points: (kind) => pillows.points(pillow, kind), now: at, span, isSelected: pillow.key === selected,
  })));
  for (const head of document.querySelectorAll(".span")) render(head, span === 60 ? "1 minute" : `${span / 60} minutes`);
  const nothing = pillows.byKey.size ? `No pillow matches “${filter.value}”.`
    : "No pillow is configured. Describe one under “pillows” in the configuration.";
  byId("nothing").hidden = listed.length || !heardAt;
  render(byId("nothing"), nothing);
  byId("events").hidden = !events.length;
  render(byId("event-list"), ...events.map((event) => eventLine(event, at)));
  showDrawer(at, span);
}

function showOverview(at) {
  const all = pillows.listed(""), counts = countStates(all), { version, startedAt } = pillows.daemon;
  const said = heardAt ? verdict(counts) : "Connecting", isLost = heardAt && lostAt != null;
  const state = heardAt ? counts[0]?.[0] ?? "stopped" : null;
  const sum = (name) => all.reduce((total, { facts }) => total + (facts[name] ?? 0), 0);
  document.title = `${lostAt == null ? said : "Connection lost"} · pillowd`;
  byId("verdict").parentElement.dataset.state = state ?? "";
  render(byId("verdict-shape"), ...(state ? [shape(state)] : []));
  render(byId("verdict"), said);
  const several = counts.length > 1 ? counts : []; // else the verdict says it
  render(byId("counts"), ...several.map(([each, number]) => h("li", { "data-state": each }, shape(each), `${number} ${each}`)));
  const totals = [["changes / s", rate(sum("changes_per_second"))], ["behind", count(sum("pending"))], ["dead letters", count(sum("dead_letters"))]];
  render(byId("totals"), ...totals.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text))));
  render(byId("version"), version ?? "");
  render(byId("uptime"), startedAt ? `up ${duration(at - startedAt)}` : "");
  render(byId("lamp"), !heardAt ? "connecting" : isLost ? "connection lost" : "live");
  byId("lost").hidden = !isLost;
  if (isLost) render(byId("lost"), `The connection to pillowd is lost since ${duration(now() - lostAt)}. This is what it said at ${moment(heardAt, now())}. The page connects again by itself.`);
}

function eventLine(event, at) {
  const isState = event.kind === "state";
  const what = isState ? [shape(event.text), event.text] : [`${event.kind}${event.count > 1 ? ` × ${count(event.count)}` : ""}`];
  return h("li", { key: event.number, "data-state": isState ? event.text : null }, h("b", {}, what),
    h("span", { dir: "auto" }, event.pillow), h("time", {}, moment(event.at, at)),
    h("span", { class: "reason", dir: "auto" }, problemOf(event.reason || (isState ? "" : event.text))));
}

function showDrawer(at, span) {
  const pillow = pillows.byKey.get(selected);
  drawer.hidden = !pillow;
  document.body.classList.toggle("with-drawer", Boolean(pillow));
  if (!pillow) return;
  drawer.dataset.state = pillow.facts.state;
  render(byId("drawer-above"), ...above(pillow, copied));
  render(byId("drawer-below"), ...below(pillow, copied, at));
  for (const kind of ["lag", "rate"]) draw(kind, byId(`chart-${kind}`), pillows.points(pillow, kind), at, span);
}

function select(key) {
  const row = rowOf(selected);
  selected = key;
  copied = {};
  history.replaceState(null, "", key ? `#${new URLSearchParams({ pillow: key })}` : location.pathname + location.search);
  show();
  drawer.scrollTop = 0;
  if (key) drawer.focus({ preventScroll: true });
  else row?.querySelector(".name").focus();
}

function keyInAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("pillow");
}

function rowOf(key) {
  return [...rows.children].find((row) => row.dataset.key === key);
}

/** Move the focus by some rows; with the drawer open, what it shows. */
function move(step) {
  const from = rowOf(selected) ?? document.activeElement?.closest("#rows tr");
  const row = from ? [...rows.children][[...rows.children].indexOf(from) + step] ?? from : rows.firstChild;
  if (selected && row) select(row.dataset.key);
  else row?.querySelector(".name").focus();
}

async function copy({ dataset: { command }, previousElementSibling }) {
  getSelection().selectAllChildren(previousElementSibling); // all there is where the clipboard is closed to a page without TLS
  await navigator.clipboard?.writeText(command);
  copied = { command, how: navigator.clipboard ? "Copied" : "Selected" };
  show();
}

filter.addEventListener("input", show);
addEventListener("hashchange", () => { selected = keyInAddress(); show(); });
rows.addEventListener("click", ({ target }) => select(target.closest("tr").dataset.key));
drawer.addEventListener("click", ({ target }) => {
  if (target.dataset.command) copy(target);
  else if (target.matches(".close")) select(null);
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target === filter;
  if (event.key === "Escape" && selected) return select(null);
  if (event.key === "Escape") {
    filter.value = "";
    filter.blur();
    return show();
  }
  if (isTyping && event.key === "Enter") return move(0);
  if (isTyping) return;
  if (event.key === "/") filter.focus();
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else return;
  event.preventDefault();
});
