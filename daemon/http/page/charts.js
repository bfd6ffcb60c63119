// Draws points over time: a small line for a row, a chart with axes for the drawer.

const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** Draw a line of the last `span` seconds into a canvas, as wide as its element. */
export function drawLine(canvas, [times, values], now, span, colour) {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const peaks = peaksByPixel(times, values, now, span, Math.floor(width));
  if (!peaks.length) return;
  const top = Math.max(1, ...peaks.map(([, value]) => value));
  const y = (value) => height - 2 - (value / top) * (height - 5);
  pen.beginPath();
  peaks.forEach(([x, value], index) => (index ? pen.lineTo(x, y(value)) : pen.moveTo(x, y(value))));
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 1.25;
  pen.lineJoin = "round";
  pen.stroke();
  const [last, value] = peaks.at(-1);
  pen.lineTo(last, height);
  pen.lineTo(peaks[0][0], height);
  pen.globalAlpha = 0.13;
  pen.fill();
  pen.globalAlpha = 1;
  pen.beginPath();
  pen.arc(last - 1, y(value), 1.8, 0, 7);
  pen.fill();
}

/** Return the highest value of each pixel that has one, as [x, value]. */
export function peaksByPixel(times, values, now, span, width) {
  const peaks = [];
  for (let index = 0; index < times.length; index++) {
    const x = Math.round(width - ((now - times[index]) / span) * width);
    if (values[index] == null || x < 0) continue;
    const last = peaks.at(-1);
    if (last && last[0] === x) last[1] = Math.max(last[1], values[index]);
    else peaks.push([x, values[index]]);
  }
  return peaks;
}

/** Return a chart with axes. `kind` is "lag" or "rate". */
export function chart(parent, kind, label) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return new uPlot({
    width: parent.clientWidth, height: 128, padding: [8, 4, 0, 0],
    cursor: { y: false, points: { size: 7 } }, legend: { show: false },
    scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
    axes: [
      { ...axis, size: 24, space: 72, incrs: [15, 30, 60, 120, 300], values: (_, moments) => moments.map(clock) },
      { ...axis, size: 52, space: 30, values: (_, ticks) => ticks.map((tick) => SHORT.format(tick)) },
    ],
    series: [{}, { label, stroke: colour(kind), fill: colour(`${kind}-area`), width: 1.5, points: { show: false } }],
  }, [[], []], parent);
}

/** Give a chart its points of the last `span` seconds. */
export function feedChart(plot, points, now, span) {
  plot.batch(() => {
    plot.setData(points, true);
    plot.setScale("x", { min: now - span, max: now });
  });
}

function clock(seconds) {
  return new Date(seconds * 1000).toTimeString().slice(0, seconds % 60 ? 8 : 5);
}
