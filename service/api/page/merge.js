/**
 * The merge view: groups on the frame, layer by layer; two methods with a divider between them.
 */
import { ask } from "./api.js";
import { requireFrame } from "./ask.js";
import { showCode } from "./code.js";
import { byId, distance, el, put } from "./dom.js";
import { drawGroups, groupDepth, groupsAt } from "./groups.js";
import { tokenPlot } from "./plots.js";
import { mergeFields, viewFields } from "./settings.js";
import { formOf, on, state, tell } from "./state.js";
import { task } from "./task.js";
import { VALUES_PX } from "./depth.js";

/** @type {{a: any, b: any, layer: number, view: number, patch: number, frame: any}} */
export const shown = { a: null, b: null, layer: 0, view: 0, patch: -1, frame: null };

/** The fields of an overlay for a method. @param {string} [method] @returns {Record<string, any>} */
export function overlayFields(method) {
  return { ...mergeFields(method), ...viewFields() };
}

/** @param {AbortSignal} signal */
async function show(signal) {
  requireFrame();
  const frame = state.frame;
  const other = byId("method-b").value;
  const wanted = [overlayFields(), ...(other ? [overlayFields(other)] : [])];
  const forms = wanted.map((fields, at) => formOf({ ...fields, ...(at === 0 && { values_px: VALUES_PX }) }));
  const [a, b] = await Promise.all(forms.map((form) => ask("/vqa/overlay", { form, signal })));
  if (state.frame !== frame) return;
  Object.assign(shown, { a, b: b ?? null, frame, patch: -1, view: Math.min(shown.view, a.views.length - 1) });
  shown.layer = a.tokens.length - 2;
  byId("merge-stage").hidden = false;
  byId("merge-hint").hidden = true;
  setControls();
  draw();
  tell("overlay");
}

function setControls() {
  const slider = byId("layer");
  slider.min = "-1";
  slider.max = String(shown.a.tokens.length - 2);
  slider.value = String(shown.layer);
  const views = byId("view-picker");
  byId("view-row").hidden = shown.a.views.length < 2;
  put(views, ...shown.a.views.map((/** @type {any} */ _, /** @type {number} */ at) => el("option", { value: at }, at === 0 ? "whole picture" : `tile ${at}`)));
  views.value = String(shown.view);
  byId("divider-row").hidden = !shown.b;
  byId("canvas-b").hidden = !shown.b;
  byId("divider-line").hidden = !shown.b;
  put(byId("name-a"), shown.a.merge.method);
  put(byId("name-b"), shown.b ? shown.b.merge.method : "");
}

/** Draw both methods; nothing is asked for. */
function draw() {
  if (!shown.a || !shown.frame) return;
  const look = { fill: byId("fill").checked, lit: shown.patch };
  drawGroups(byId("canvas-a"), shown.frame.bitmap, shown.a.views[shown.view], shown.layer, look);
  if (shown.b) drawGroups(byId("canvas-b"), shown.frame.bitmap, shown.b.views[shown.view], shown.layer, look);
  moveDivider();
  describe();
}

function moveDivider() {
  const share = Number(byId("divider").value);
  byId("canvas-b").style.setProperty("clip-path", `inset(0 0 0 ${100 * share}%)`);
  byId("divider-line").style.setProperty("left", `${100 * share}%`);
  byId("merge-stage").style.setProperty("--share", String(share));
}

function describe() {
  const lines = [{ name: shown.a.merge.method, counts: shown.a.tokens, mark: "a" }];
  if (shown.b) lines.push({ name: shown.b.merge.method, counts: shown.b.tokens, mark: "b" });
  put(byId("token-plot"), tokenPlot(lines, shown.layer + 1));
  const at = shown.layer < 0 ? "before the first layer" : `after layer ${shown.layer}`;
  put(byId("layer-shown"), at);
  byId("layer").setAttribute("aria-valuetext", at);
  const said = [shown.a, shown.b].filter(Boolean).map((one) => `${one.merge.method}: ${one.tokens[shown.layer + 1]} of ${one.tokens[0]} tokens`);
  put(byId("token-counts"), `${said.join(", ")} ${at}`);
  put(byId("patch-shown"), ...patchFacts());
}

/** @returns {any[]} what is known of the patch under the pointer, for each method */
function patchFacts() {
  if (shown.patch < 0) return [el("p", { class: "note" }, "Point at a patch, or move with the arrow keys, to light up its group.")];
  const [, columns] = shown.a.views[shown.view].grid;
  const where = `row ${Math.floor(shown.patch / columns) + 1}, column ${(shown.patch % columns) + 1}`;
  return [shown.a, shown.b].filter(Boolean).map((one) => {
    const view = one.views[shown.view];
    const layer = groupsAt(view, shown.layer);
    const group = layer.groups[shown.patch];
    const depth = distance(view.depth?.[shown.patch], shownUnit());
    if (group < 0) return el("p", {}, el("strong", {}, one.merge.method), ` ${where}: dropped, ${depth}`);
    const size = layer.sizes[group];
    const of = size === 1 ? "alone" : `one of ${size} patches`;
    const mean = size === 1 ? "" : `, group ${distance(groupDepth(view, layer)[group], shownUnit())}`;
    return el("p", {}, el("strong", {}, one.merge.method), ` ${where}: ${of}, ${depth}${mean}`);
  });
}

/** @returns {string | null} */
export function shownUnit() {
  return shown.a?.depth?.unit ?? state.unit;
}

/** @param {number} patch */
function light(patch) {
  if (patch === shown.patch) return;
  shown.patch = patch;
  draw();
}

function startPointer() {
  const stage = byId("merge-canvas");
  const patchAt = (/** @type {PointerEvent} */ event) => {
    const box = byId("canvas-a").getBoundingClientRect();
    const [rows, columns] = shown.a.views[shown.view].grid;
    const across = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const down = Math.floor(((event.clientY - box.top) / box.height) * rows);
    return across < 0 || down < 0 || across >= columns || down >= rows ? -1 : down * columns + across;
  };
  let dragging = false;
  stage.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!shown.a) return;
    if (dragging) dragTo(event);
    else light(patchAt(event));
  });
  stage.addEventListener("pointerleave", () => !dragging && light(-1));
  const dragTo = (/** @type {PointerEvent} */ event) => {
    const box = stage.getBoundingClientRect();
    byId("divider").value = String(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
    moveDivider();
  };
  const line = byId("divider-line");
  line.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    dragging = true;
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  stage.addEventListener("pointerup", () => (dragging = false));
  stage.addEventListener("pointercancel", () => (dragging = false));
  stage.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => shown.a && !dragging && light(patchAt(event)));
}

/** @param {KeyboardEvent} event */
function moveByKey(event) {
  if (!shown.a) return;
  const [rows, columns] = shown.a.views[shown.view].grid;
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const step = /** @type {any} */ (steps)[event.key];
  if (event.key === "Escape") light(-1);
  if (!step) return;
  event.preventDefault();
  const from = shown.patch < 0 ? Math.floor(rows / 2) * columns + Math.floor(columns / 2) : shown.patch;
  const row = Math.min(Math.max(Math.floor(from / columns) + step[0], 0), rows - 1);
  const column = Math.min(Math.max((from % columns) + step[1], 0), columns - 1);
  light(shown.patch < 0 ? from : row * columns + column);
}

export function startMerge() {
  const run = task({ start: byId("show-groups"), cancel: byId("cancel-groups"), place: byId("merge-progress"), saying: "Following the merging", work: show });
  byId("layer").addEventListener("input", () => {
    shown.layer = Number(byId("layer").value);
    draw();
  });
  byId("divider").addEventListener("input", moveDivider);
  byId("fill").addEventListener("change", draw);
  byId("method-b").addEventListener("change", () => shown.a && run());
  byId("view-picker").addEventListener("change", () => {
    shown.view = Number(byId("view-picker").value);
    shown.patch = -1;
    draw();
  });
  byId("merge-canvas").addEventListener("keydown", moveByKey);
  startPointer();
  on("settings", () => {
    byId("merge-stale").hidden = !shown.a;
  });
  on("overlay", () => {
    byId("merge-stale").hidden = true;
  });
  on("frame", () => {
    Object.assign(shown, { a: null, b: null, frame: null });
    byId("merge-stage").hidden = true;
    byId("merge-hint").hidden = false;
    byId("merge-stale").hidden = true;
  });
  showCode(byId("merge-code"), () => ({ path: "/vqa/overlay", fields: overlayFields() }), "the groups", ["curl", "Python"]);
}
