/**
 * How the depth file was read: in colours with a bar in metres, every guess, every doubt, and presets.
 */
import { ask, presets } from "./api.js";
import { css, depthColour, HOLE, nearToFar } from "./colours.js";
import { byId, distance, el, percent, put } from "./dom.js";
import { showFailure } from "./failures.js";
import { formOf, on, state, tell } from "./state.js";

export const VALUES_PX = 192;

/** Read the depth of the frame again, and show what was understood. */
async function inspect() {
  const frame = state.frame;
  const place = byId("depth-reading");
  state.values = null;
  byId("presets-box").hidden = !frame?.depth;
  if (!frame?.depth) {
    drawNothing();
    put(place, el("p", { class: "note" }, "No depth file. Methods that need depth estimate it from the picture."));
    tell("depth");
    return;
  }
  const preset = state.preset;
  /** @type {Record<string, any>} */
  const fields = { values_px: VALUES_PX, ...(preset && { depth_preset: preset }) };
  try {
    const read = await ask("/depth/inspect", { form: formOf(fields) });
    if (state.frame !== frame || state.preset !== preset) return;
    showReading(place, read);
  } catch (error) {
    if (state.frame !== frame || state.preset !== preset) return;
    drawNothing();
    showFailure(place, error, inspect);
  }
  tell("depth");
}

/** @param {Element} place @param {any} read */
function showReading(place, read) {
  state.values = { ...read.values, kind: read.kind };
  state.unit = read.unit;
  drawDepth(byId("depth-picture"), state.values);
  byId("depth-picture").setAttribute("aria-label", `Its depth, ${distance(read.range?.[0], read.unit)} to ${distance(read.range?.[1], read.unit)}`);
  const scale = read.scale ? `, ${read.scale} per metre` : "";
  put(
    place,
    el("p", { class: "facts" }, `${read.format} ${read.dtype}, ${read.width} × ${read.height}, ${read.kind}${scale}, ${percent(read.valid_ratio)} valid`),
    doubts("Guessed", read.guessed),
    doubts("Doubts", read.notes),
  );
}

/** @param {string} title @param {{sentence: string}[]} list */
function doubts(title, list) {
  if (!list.length) return null;
  return el("ul", { class: "doubts", "aria-label": title }, ...list.map((one) => el("li", {}, one.sentence)));
}

function drawNothing() {
  byId("depth-figure").hidden = true;
}

/** @param {any} canvas @param {{height: number, width: number, values: (number | null)[], kind: string}} map */
function drawDepth(canvas, map) {
  byId("depth-figure").hidden = false;
  const range = nearToFar(map.values, map.kind);
  const pixels = new ImageData(map.width, map.height);
  map.values.forEach((value, at) => {
    pixels.data.set([...(value === null ? HOLE : depthColour(range.share(value))), 255], 4 * at);
  });
  canvas.width = map.width;
  canvas.height = map.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  drawBar(range);
}

/** @param {{near: number, far: number}} range */
function drawBar(range) {
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const label = (/** @type {number} */ share) => {
    if (!state.unit) return share === 0 ? "near" : share === 1 ? "far" : "";
    return distance(range.near + share * (range.far - range.near), state.unit);
  };
  const bar = byId("colour-bar");
  bar.style.setProperty("background", `linear-gradient(to right, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => css(depthColour(share))).join(", ")})`);
  put(byId("colour-ticks"), ...ticks.map((share) => el("span", {}, label(share))));
}

/** Presets that have a button; the others are in a list. */
const COMMON = ["scannet", "tum", "realsense", "kitti", "habitat"];

export function startDepth() {
  const [box, list] = [byId("presets"), byId("more-presets")];
  const named = ["", ...COMMON.filter((name) => presets.includes(name))];
  const buttons = named.map((name) => el("button", { type: "button", class: "chip", data: { preset: name }, on: { click: () => choose(name) } }, name || "as guessed"));
  box.prepend(el("span", { class: "note" }, "Read as"), ...buttons);
  list.append(...presets.filter((name) => !COMMON.includes(name)).map((name) => el("option", {}, name)));
  list.addEventListener("change", () => choose(list.value));
  const mark = () => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.preset === state.preset));
    list.value = named.includes(state.preset) ? "" : state.preset;
  };
  const choose = (/** @type {string} */ name) => {
    state.preset = name;
    mark();
    tell("settings");
    inspect();
  };
  on("frame", () => {
    mark();
    inspect();
  });
}
