/**
 * Small plots: stages as one stacked bar, shares as meters, tokens per layer as steps, latency over time.
 */
import { el, milliseconds, svg } from "./dom.js";

/** Stages in the order they happen; the rest of the total is shown as "rest". */
const STAGES = ["receive", "queue", "decode", "preprocess", "estimate", "depth", "vision", "language_queue", "prefill", "generate"];

/**
 * @param {Record<string, number | null>} timings milliseconds by stage, with a total
 * @returns {HTMLElement}
 */
export function stageBar(timings) {
  const total = timings.total || 1;
  const spent = STAGES.filter((stage) => timings[stage]).map((stage) => ({ stage, ms: Number(timings[stage]) }));
  const bar = el("div", { class: "stages", "aria-hidden": "true" });
  const legend = el("ul", { class: "legend" });
  for (const { stage, ms } of spent) {
    bar.append(el("span", { class: `stage ${stage}`, style: { width: `${(100 * ms) / total}%` }, title: `${stage} ${milliseconds(ms)}` }));
    legend.append(el("li", {}, el("span", { class: `dot ${stage}`, "aria-hidden": "true" }), `${stage.replace("_", " ")} ${milliseconds(ms)}`));
  }
  return el("div", { role: "group", "aria-label": `Time by stage, ${milliseconds(total)} in all` }, bar, legend);
}

/**
 * A bar beside a number, for tables.
 * @param {number} share of the widest, 0 to 1
 * @param {string} text
 */
export function meter(share, text) {
  const width = `${(100 * Math.min(Math.max(share, 0), 1)).toFixed(1)}%`;
  return el("span", { class: "meter" }, el("span", { class: "bar", style: { width }, "aria-hidden": "true" }), el("span", { class: "value" }, text));
}

/**
 * Steps of tokens at the entry of every layer and at the end, one line for each method.
 * @param {{name: string, counts: number[], mark: string}[]} lines
 * @param {number} layer the one that the slider shows
 */
export function tokenPlot(lines, layer) {
  const [width, height, left, bottom] = [360, 132, 34, 20];
  const layers = Math.max(...lines.map((line) => line.counts.length - 1));
  const most = Math.max(...lines.map((line) => line.counts[0]));
  const x = (/** @type {number} */ at) => left + ((width - left - 8) * at) / layers;
  const y = (/** @type {number} */ count) => 8 + (height - bottom - 8) * (1 - count / most);
  const said = lines.map((line) => `${line.name}: ${line.counts[0]} tokens before, ${line.counts.at(-1)} after`).join("; ");
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": `Tokens by layer. ${said}` });
  for (const share of [0, 0.5, 1]) {
    const count = Math.round(most * share);
    plot.append(svg("line", { x1: left, x2: width - 8, y1: y(count), y2: y(count), class: "grid" }));
    plot.append(svg("text", { x: left - 5, y: y(count) + 3.5, class: "tick end" }, count));
  }
  plot.append(svg("line", { x1: x(layer), x2: x(layer), y1: 8, y2: height - bottom, class: "now" }));
  for (const { counts, mark } of lines) {
    const path = counts.map((count, at) => (at ? `H${x(at).toFixed(1)}V${y(count).toFixed(1)}` : `M${x(0)} ${y(count).toFixed(1)}`));
    plot.append(svg("path", { d: path.join(""), class: `line ${mark}` }));
  }
  const every = Math.ceil(layers / 12);
  for (let at = 0; at <= layers; at += every) plot.append(svg("text", { x: x(at), y: height - 5, class: "tick middle" }, at));
  return plot;
}

/**
 * Latency of repeated questions, newest at the right.
 * @param {{total: number, vision: number}[]} points
 */
export function latencyPlot(points) {
  const [width, height, left] = [360, 110, 56];
  const most = Math.max(...points.map((point) => point.total), 1) * 1.1;
  const x = (/** @type {number} */ at) => left + ((width - left - 8) * at) / Math.max(points.length - 1, 1);
  const y = (/** @type {number} */ ms) => 8 + (height - 20) * (1 - ms / most);
  const last = points.at(-1);
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": `Latency of ${points.length} answers, the last in ${milliseconds(last?.total ?? 0)}` });
  for (const ms of [0, most / 2, most / 1.1]) {
    plot.append(svg("line", { x1: left, x2: width - 8, y1: y(ms), y2: y(ms), class: "grid" }));
    plot.append(svg("text", { x: left - 5, y: y(ms) + 3.5, class: "tick end" }, milliseconds(ms)));
  }
  for (const [name, mark] of /** @type {["total" | "vision", string][]} */ ([["total", "a"], ["vision", "b"]])) {
    const d = points.map((point, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(point[name]).toFixed(1)}`).join("");
    plot.append(svg("path", { d, class: `line ${mark}` }));
    if (last) plot.append(svg("circle", { cx: x(points.length - 1), cy: y(last[name]), r: 2.5, class: `end-dot ${mark}` }));
  }
  return plot;
}
