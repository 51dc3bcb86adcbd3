// Small multiples of metrics over steps, one line per run, as SVG.

const NAMESPACE = "http://www.w3.org/2000/svg";
const WIDTH = 360, HEIGHT = 170, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 22;

function svg(tag, attributes, text) {
  const node = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(1) : String(+value.toPrecision(digits));
}

// A figure of one metric. `lines` has an entry for each run with the metric: the run's number and [step, value] pairs.
export function chart(name, lines) {
  const points = lines.flatMap(({ values }) => values);
  const steps = points.map(([step]) => step), heights = points.map(([, value]) => value);
  const first = Math.min(...steps), last = Math.max(...steps);
  let low = Math.min(...heights), high = Math.max(...heights);
  if (low === high) { low -= 0.5; high += 0.5; }
  const x = (step) => LEFT + (last === first ? 0.5 : (step - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const latest = lines.map(({ values }) => number(values.at(-1)[1])).join(", ");
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name}: ${latest} at the last step` });
  for (const value of [low, (low + high) / 2, high]) {
    drawing.append(svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    drawing.append(svg("text", { x: LEFT - 4, y: y(value) + 4, "text-anchor": "end" }, number(value, 3)));
  }
  drawing.append(svg("text", { x: LEFT, y: HEIGHT - 6 }, first));
  drawing.append(svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, `step ${last}`));
  for (const { run, values } of lines) {
    const path = values.map(([step, value]) => `${x(step)},${y(value)}`).join(" ");
    drawing.append(svg("polyline", { class: `line c${run % 6}`, points: path }));
    if (values.length < 40) {
      for (const [step, value] of values) {
        drawing.append(svg("circle", { class: `dot c${run % 6}`, cx: x(step), cy: y(value), r: 2 }));
      }
    }
  }
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const title = document.createElement("b"), reading = document.createElement("span");
  title.textContent = name;
  reading.textContent = ` ${latest}`;
  caption.append(title, reading);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const at = first + ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * (last - first);
    const nearest = (values) => values.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
    const read = lines.map(({ values }) => nearest(values));
    reading.textContent = ` step ${read[0][0]}: ${read.map(([, value]) => number(value)).join(", ")}`;
  });
  drawing.addEventListener("pointerleave", () => { reading.textContent = ` ${latest}`; });
  figure.append(caption, drawing);
  return figure;
}
