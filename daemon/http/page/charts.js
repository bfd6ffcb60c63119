// Draws points over time: a small line for a row, charts with axes for the drawer.
import { h } from "./dom.js";

/** Units of a small line's width and height; the style sheet stretches it. */
const WIDTH = 100, HEIGHT = 30;
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const plots = {};

/** Describe a line of the last `span` seconds that ends in a dot. */
export function line([times, values], now, span) {
  const peaks = peaksByStep(times, values, now, span, WIDTH);
  const top = Math.max(1, ...peaks.map(([, value]) => value));
  const path = peaks.map(([x, value]) => `${x} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 5)).toFixed(1)}`);
  const ends = { first: peaks[0]?.[0], last: peaks.at(-1)?.[0] };
  return h("svg", { class: "line", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    path.length > 0 && [
      h("path", { class: "area", d: `M${path.join("L")}L${ends.last} ${HEIGHT}L${ends.first} ${HEIGHT}z` }),
      h("path", { d: `M${path.join("L")}` }),
      h("path", { class: "dot", d: `M${path.at(-1)}h0` })]);
}

/** Return the highest value of each step that has one, as [x, value]: the span is so many steps wide. */
export function peaksByStep(times, values, now, span, steps) {
  const peaks = [];
  for (let index = 0; index < times.length; index++) {
    const x = Math.round(steps - ((now - times[index]) / span) * steps);
    if (values[index] == null || x < 0) continue;
    const last = peaks.at(-1);
    if (last?.[0] === x) last[1] = Math.max(last[1], values[index]);
    else peaks.push([x, values[index]]);
  }
  return peaks;
}

/** Draw the chart of a kind ("lag", "rate") into a box, as wide as that is: the last `span` seconds. */
export function draw(kind, box, points, now, span) {
  const plot = (plots[kind] ??= makePlot(kind, box));
  if (plot.width !== box.clientWidth) plot.setSize({ width: box.clientWidth, height: plot.height });
  plot.batch(() => {
    plot.setData(points, true);
    plot.setScale("x", { min: now - span, max: now });
  });
}

function makePlot(kind, box) {
  const colour = (name) => () => getComputedStyle(box).getPropertyValue(`--${name}`).trim(); // light or dark
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return new uPlot({
    width: box.clientWidth, height: 128, padding: [8, 4, 0, 0],
    cursor: { y: false, points: { size: 7 } }, legend: { show: false },
    scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
    axes: [
      { ...axis, size: 24, space: 72, incrs: [15, 30, 60, 120, 300], values: (_, moments) => moments.map(clock) },
      { ...axis, size: 52, space: 30, values: (_, ticks) => ticks.map((tick) => SHORT.format(tick)) },
    ],
    series: [{}, { stroke: colour(kind), fill: colour(`${kind}-area`), width: 1.5, points: { show: false } }],
  }, [[], []], box);
}

function clock(seconds) {
  return new Date(seconds * 1000).toTimeString().slice(0, seconds % 60 ? 8 : 5);
}
