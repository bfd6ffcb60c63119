// The table: one row a pillow. Rows are kept and only what differs is written.
import { drawLine } from "./charts.js";
import { element, setAttribute, setText, shape } from "./dom.js";
import { ago, count, duration, percent, printable, rate, splitReason } from "./format.js";
import { deliveryAge, passShare } from "./pillows.js";

export class Table {
  /** `body` is the table's; `open(key)` is called when a row is chosen. */
  constructor(body, open) {
    this.body = body;
    this.open = open;
    this.rows = new Map();
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) target.visible = isIntersecting;
    }, { rootMargin: "200px" });
  }

  /** Show these pillows in this order. */
  show(listed, pillows, now) {
    const keys = new Set(listed.map(({ key }) => key));
    for (const [key, row] of this.rows) if (!keys.has(key)) this.#remove(key, row);
    let before = this.body.firstChild;
    for (const pillow of listed) {
      const row = this.rows.get(pillow.key) ?? this.#add(pillow);
      if (row.line === before) before = before.nextSibling;
      else this.#place(row.line, before);
      this.#write(row, pillow, now, pillows.daemon.ahead ?? 0);
      if (row.line.visible !== false) this.#draw(row, pillow, pillows, now);
    }
  }

  /** Mark the row that the drawer shows; move the focus there if asked. */
  select(key, { focus = false } = {}) {
    for (const [each, { line }] of this.rows) line.classList.toggle("selected", each === key);
    if (focus) this.rows.get(key)?.name.focus();
    if (focus) this.rows.get(key)?.line.scrollIntoView({ block: "nearest" });
  }

  /** Return the key of the row that has the focus. */
  focused() {
    return document.activeElement?.closest?.("tr[data-key]")?.dataset.key;
  }

  /** Return the key of the row that is some rows away from another, or at the end that was met. */
  neighbour(key, step) {
    const lines = [...this.body.children];
    const at = lines.findIndex((line) => line.dataset.key === key);
    const next = at < 0 ? 0 : Math.min(lines.length - 1, Math.max(0, at + step));
    return lines[next]?.dataset.key;
  }

  #add(pillow) {
    const { facts } = pillow;
    const cell = (name, ...children) => element("td", { class: `c-${name}`, role: "cell" }, ...children);
    const row = {
      word: element("b"), since: element("small"),
      name: element("button", { type: "button", class: "name" }, printable(facts.pillow)),
      lag: element("span"), lagTime: element("small"), lagLine: element("canvas", { "aria-hidden": "true" }),
      rate: element("span"), rateLine: element("canvas", { "aria-hidden": "true" }),
      delivery: element("span"), dead: element("span"), reason: element("span", { dir: "auto" }), shape: null,
    };
    row.mark = element("span", { class: "mark" });
    row.line = element("tr", { role: "row", "data-key": pillow.key },
      cell("state", row.mark, element("span", {}, row.word, row.since)),
      cell("pillow", row.name, element("small", { dir: "auto", title: printable(facts.source) }, printable(facts.source))),
      cell("lag num", row.lag, row.lagTime), cell("spark lag-line", row.lagLine),
      cell("rate num", row.rate), cell("spark rate-line", row.rateLine),
      cell("delivery num", row.delivery), cell("dead num", row.dead), cell("reason", row.reason));
    row.line.addEventListener("click", () => this.open(pillow.key));
    this.rows.set(pillow.key, row);
    this.seen.observe(row.line);
    return row;
  }

  #place(line, before) {
    const focus = line.contains(document.activeElement) && document.activeElement;
    this.body.insertBefore(line, before);
    if (focus) focus.focus({ preventScroll: true });
  }

  #remove(key, row) {
    this.seen.unobserve(row.line);
    row.line.remove();
    this.rows.delete(key);
  }

  #write(row, pillow, now, ahead) {
    const { facts } = pillow;
    if (row.line.dataset.state !== facts.state) {
      row.line.dataset.state = facts.state;
      row.mark.replaceChildren(shape(facts.state));
    }
    setText(row.word, facts.state);
    setText(row.since, stateRemark(pillow, now - ahead));
    setText(row.lag, count(facts.pending));
    setText(row.lagTime, facts.lag_seconds == null ? "" : duration(facts.lag_seconds));
    row.line.classList.toggle("behind", facts.lag_seconds >= 60);
    setText(row.rate, rate(facts.changes_per_second));
    setText(row.delivery, ago(deliveryAge(pillow, now - ahead)));
    setText(row.dead, count(facts.dead_letters));
    row.line.classList.toggle("has-dead", facts.dead_letters > 0);
    const reason = printable(splitReason(facts.reason).reason).replaceAll("`", "");
    setText(row.reason, reason);
    setAttribute(row.reason, "title", reason);
  }

  #draw(row, pillow, pillows, now) {
    drawLine(row.lagLine, pillows.points(pillow, "lag"), now, pillows.span(now), getComputedStyle(row.lagLine).color);
    drawLine(row.rateLine, pillows.points(pillow, "rate"), now, pillows.span(now), getComputedStyle(row.rateLine).color);
  }
}

/** Return what stands under a state: how far a pillow that catches up has come, else how long the state has lasted. */
export function stateRemark({ facts }, now) {
  if (facts.state === "catching-up" && facts.seconds_to_go != null) {
    const share = passShare(facts);
    return `${share == null ? "" : `${percent(share)}, `}${duration(facts.seconds_to_go)} to go`;
  }
  const last = facts.history?.at(-1);
  return last ? `for ${duration(Math.max(0, now - last.at))}` : "";
}
