// The page: what the daemon says becomes rows, a verdict and a drawer, once a second.
import { element, setText, shape } from "./dom.js";
import { Drawer } from "./drawer.js";
import { count, duration, moment, printable, rate, splitReason } from "./format.js";
import { Pillows, countStates, verdict } from "./pillows.js";
import { follow } from "./stream.js";
import { Table } from "./table.js";

const byId = (id) => document.getElementById(id);
export const pillows = new Pillows();
const table = new Table(byId("rows"), select);
const drawer = new Drawer(byId("drawer"), () => select(null));
const filter = byId("filter");
const EVENTS = 12;
let events = [], lostAt = null, heardAt = null, selected = keyInAddress();

const now = () => Date.now() / 1000;

follow("v1/events", {
  status(message) {
    const said = pillows.apply(message, now());
    if (said.length) setText(byId("announcer"), said.slice(0, 5).join(". "));
    if (said.length || message.complete) show(); // the rest waits for the next second
  },
  event(event) {
    if (event.number <= (events[0]?.number ?? 0)) return; // sent again after a break
    events = [event, ...events].slice(0, EVENTS);
    showEvents();
  },
  connected() {
    heardAt = now();
    lostAt = null;
    document.body.dataset.connection = "live";
  },
  lost() {
    lostAt ??= now();
    document.body.dataset.connection = heardAt ? "lost" : "connecting";
    show();
  },
});

setInterval(() => {
  if (lostAt == null) pillows.note(now());
  show();
}, 1000);

function show() {
  const at = lostAt ?? now();
  const listed = pillows.listed(filter.value);
  table.show(listed, pillows, at);
  table.select(selected);
  const minutes = pillows.span(at) / 60;
  for (const head of document.querySelectorAll(".span")) setText(head, minutes === 1 ? "1 minute" : `${minutes} minutes`);
  drawer.show(pillows.byKey.get(selected), pillows, at);
  showOverview();
  setText(byId("nothing"), listed.length || !heardAt ? "" : pillows.byKey.size
    ? `No pillow matches “${filter.value}”.` : "No pillow is configured. Describe one under “pillows” in the configuration.");
  byId("nothing").hidden = !byId("nothing").textContent;
  byId("rows").parentElement.hidden = !listed.length;
}

function showOverview() {
  const all = [...pillows.byKey.values()], counts = countStates(all), { daemon } = pillows;
  const said = heardAt ? verdict(counts) : "Connecting";
  setText(byId("verdict"), said);
  const worst = counts[0]?.[0] ?? "stopped", title = byId("verdict").parentElement;
  if (heardAt && title.dataset.state !== worst) {
    title.dataset.state = worst;
    byId("verdict-shape").replaceChildren(shape(worst));
  }
  document.title = `${lostAt == null ? said : "Connection lost"} · pillowd`;
  const list = byId("counts"), text = JSON.stringify(counts);
  if (list.said !== text) {
    list.said = text;
    list.hidden = counts.length < 2; // the verdict says it
    list.replaceChildren(...counts.map(([state, number]) => element("li", { "data-state": state }, shape(state), `${number} ${state}`)));
  }
  const sum = (name) => all.reduce((total, { facts }) => total + (facts[name] ?? 0), 0);
  showTotals([["changes / s", rate(sum("changes_per_second"))], ["behind", count(sum("pending"))], ["dead letters", count(sum("dead_letters"))]]);
  setText(byId("version"), daemon.version ?? "");
  const up = daemon.up_seconds == null ? null : daemon.up_seconds + (lostAt ?? now()) - daemon.received;
  setText(byId("uptime"), up == null ? "" : `up ${duration(up)}`);
  setText(byId("lamp"), lostAt == null ? (heardAt ? "live" : "connecting") : "connection lost");
  const lost = byId("lost");
  lost.hidden = lostAt == null || !heardAt;
  setText(lost, lost.hidden ? "" : `The connection to pillowd is lost since ${duration(now() - lostAt)}. This is what it said at ${moment(heardAt, now())}. The page connects again by itself.`);
}

function showEvents() {
  byId("events").hidden = !events.length;
  byId("event-list").replaceChildren(...events.map((event) => {
    const state = event.kind === "state" ? event.text : null;
    const what = state ?? `${event.kind}${event.count > 1 ? ` × ${count(event.count)}` : ""}`;
    return element("li", { "data-state": state },
      element("b", {}, ...(state ? [shape(state), state] : [what])),
      element("span", { dir: "auto" }, printable(event.pillow)), element("time", {}, moment(event.at, now())),
      element("span", { class: "reason", dir: "auto" }, printable(splitReason(event.reason || (state ? "" : event.text)).reason)));
  }));
}

function showTotals(totals) {
  const list = byId("totals");
  if (!list.childElementCount) list.append(...totals.map(([name]) => element("div", {}, element("dt", {}, name), element("dd", {}))));
  totals.forEach(([, value], index) => setText(list.children[index].lastChild, value));
}

function select(key, options) {
  const opener = selected;
  selected = key;
  history.replaceState(null, "", key ? `#${encodeURIComponent(key)}` : location.pathname + location.search);
  show();
  if (key) byId("drawer").focus({ preventScroll: true });
  else table.select(opener, { focus: true, ...options });
  table.select(key);
}

function keyInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null; // somebody typed it
  }
}

filter.addEventListener("input", show);
addEventListener("hashchange", () => { selected = keyInAddress(); show(); });

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === filter;
  if (event.key === "Escape") {
    if (selected) return select(null);
    filter.value = "";
    filter.blur();
    return show();
  }
  if (typing && event.key === "Enter") return move(0);
  if (typing) return;
  if (event.key === "/") filter.focus();
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else return;
  event.preventDefault();
});

/** Move the focus by some rows; with the drawer open, what it shows. */
function move(step) {
  const from = selected ?? table.focused();
  const key = table.neighbour(from, from ? step : 0);
  if (selected && key) select(key);
  else if (key) table.select(key, { focus: true });
  if (!selected) table.select(null);
}
