/**
 * Compare: every method on the same frame and question, sorted, and to take along as Markdown or CSV.
 */
import { ask, mostCompared } from "./api.js";
import { requireFrame } from "./ask.js";
import { copied, showCode } from "./code.js";
import { byId, el, milliseconds, percent, put } from "./dom.js";
import { meter } from "./plots.js";
import { answerFields, mergeFields, methods, viewFields } from "./settings.js";
import { formOf, on, state } from "./state.js";
import { task } from "./task.js";

/**
 * @typedef {object} Row
 * @property {string} method
 * @property {string} answer
 * @property {boolean | null} agrees
 * @property {number | null} confidence
 * @property {number | null} tokens
 * @property {number | null} vision
 * @property {number | null} total
 * @property {number | null} flops
 * @property {string | null} error
 */

/** @type {{name: keyof Row, title: string, write: (value: any) => string, larger?: boolean}[]} */
const COLUMNS = [
  { name: "method", title: "Method", write: String },
  { name: "answer", title: "Answer", write: String },
  { name: "confidence", title: "Confidence", write: percent, larger: true },
  { name: "tokens", title: "Tokens", write: String },
  { name: "vision", title: "Vision", write: milliseconds },
  { name: "total", title: "Total", write: milliseconds },
  { name: "flops", title: "Encoder FLOPs", write: percent },
];

/** @type {{rows: Row[], by: keyof Row, ascending: boolean, about: string}} */
const table = { rows: [], by: "total", ascending: true, about: "" };

/** Methods in one request: their answers are shown before the next ones are asked for. */
const AT_ONCE = 3;

/** @param {AbortSignal} signal @param {(text: string) => void} progress */
async function compare(signal, progress) {
  requireFrame();
  const question = byId("question").value;
  const specs = methods.map((method) => mergeFields(method.name));
  const frame = state.frame;
  /** @type {Row[]} */
  const rows = [];
  const size = Math.min(AT_ONCE, mostCompared);
  for (let at = 0; at < specs.length; at += size) {
    progress(`${at} of ${specs.length} methods`);
    const fields = { ...sharedFields(), question, specs: specs.slice(at, at + size) };
    const body = await ask("/vqa/compare", { form: formOf(fields), signal });
    if (state.frame !== frame) return;
    rows.push(...body.results.map(rowOf));
    const truth = rows.find((row) => row.method === "none")?.answer;
    for (const row of rows) row.agrees = row.error || truth === undefined ? null : row.answer === truth;
    Object.assign(table, { rows, about: question });
    draw();
  }
}

/** What all methods are asked with. @returns {Record<string, any>} */
function sharedFields() {
  return { question: byId("question").value, ...viewFields(), ...answerFields(), cache: false, confidence: true };
}

/** @param {any} result @returns {Row} */
function rowOf(result) {
  const empty = { answer: "", agrees: null, confidence: null, tokens: null, vision: null, total: null, flops: null, error: null };
  if (result.error) return { ...empty, method: result.spec.method, error: result.error.message };
  const { merge, timings_ms: timings } = result;
  return {
    ...empty,
    method: merge.method,
    answer: result.answer,
    confidence: result.confidence ?? null,
    tokens: merge.tokens_out,
    vision: timings.vision ?? 0,
    total: timings.total - (timings.queue ?? 0),
    flops: merge.vit_flops_ratio,
  };
}

/** @returns {Row[]} */
function sorted() {
  const { rows, by, ascending } = table;
  const value = (/** @type {Row} */ row) => row[by];
  return [...rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return ascending ? order : -order;
  });
}

function draw() {
  byId("compare-table").hidden = false;
  byId("compare-actions").hidden = false;
  const head = COLUMNS.map(({ name, title, larger }) => {
    const is_mine = table.by === name;
    const order = is_mine ? (table.ascending ? "ascending" : "descending") : "none";
    const sort = () => {
      table.ascending = is_mine ? !table.ascending : !larger;
      table.by = name;
      draw();
      /** @type {any} */ (byId("compare-table").querySelector(`[data-column="${name}"] button`))?.focus();
    };
    const arrow = is_mine ? (table.ascending ? " ↑" : " ↓") : "";
    return el("th", { scope: "col", "aria-sort": order, data: { column: name } }, el("button", { type: "button", on: { click: sort } }, title, el("span", { "aria-hidden": "true" }, arrow)));
  });
  const widest = Object.fromEntries(COLUMNS.map(({ name }) => [name, Math.max(...table.rows.map((row) => Number(row[name]) || 0), 1e-9)]));
  const body = sorted().map((row) => el("tr", {}, ...cells(row, widest)));
  put(byId("compare-table"), el("caption", {}, table.about), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

/** @param {Row} row @param {Record<string, number>} widest */
function cells(row, widest) {
  const head = el("th", { scope: "row" }, row.method);
  if (row.error) return [head, el("td", { colspan: COLUMNS.length - 1, class: "problem" }, row.error)];
  const mark = row.agrees === false ? el("span", { class: "differs" }, " differs") : null;
  const bars = COLUMNS.slice(2).map(({ name, write, title }) => {
    const share = name === "confidence" || name === "flops" ? Number(row[name]) : Number(row[name]) / widest[name];
    return el("td", { data: { title } }, row[name] === null ? "" : meter(share, write(row[name])));
  });
  return [head, el("td", { data: { title: "Answer" } }, el("span", { class: "said" }, row.answer || "(empty)"), mark), ...bars];
}

/** @param {any} value */
const plain = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value ?? ""));

/** @returns {string} */
export function markdown() {
  const safe = (/** @type {any} */ value) => plain(value).replace(/[\\|`*_<>[\]]/g, "\\$&").replace(/\s+/g, " ");
  const line = (/** @type {string[]} */ cells) => `| ${cells.join(" | ")} |`;
  const units = COLUMNS.map(({ title, name }) => (name === "vision" || name === "total" ? `${title} (ms)` : title));
  const rows = sorted().map((row) => line(COLUMNS.map(({ name }) => safe(name === "answer" && row.error ? row.error : row[name]))));
  return [line(units), line(COLUMNS.map(() => "---")), ...rows, ""].join("\n");
}

/** @returns {string} */
export function csv() {
  // A leading =, +, - or @ would be a formula in a spreadsheet.
  const safe = (/** @type {any} */ value) => {
    const text = typeof value === "number" ? plain(value) : plain(value).replace(/^[=+\-@\t\r]/, "'$&");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = sorted().map((row) => COLUMNS.map(({ name }) => safe(name === "answer" && row.error ? row.error : row[name])).join(","));
  return [COLUMNS.map(({ name }) => name).join(","), ...rows, ""].join("\r\n");
}

export function startCompare() {
  task({ start: byId("compare-button"), cancel: byId("cancel-compare"), place: byId("compare-progress"), saying: "Asking with every method", work: compare });
  const said = byId("copied");
  byId("copy-markdown").addEventListener("click", () => copied(markdown(), said));
  byId("copy-csv").addEventListener("click", () => copied(csv(), said));
  const request = () => ({ path: "/vqa/compare", fields: { ...sharedFields(), specs: methods.map((method) => mergeFields(method.name)) } });
  showCode(byId("compare-code"), request, "the comparison");
  on("frame", () => {
    table.rows = [];
    byId("compare-table").hidden = true;
    byId("compare-actions").hidden = true;
  });
}
