/**
 * The walk of an episode in 3D: the path of the camera, a dot for each remembered token, and what the answer read of it.
 */
import { css, groupColour } from "./colours.js";
import { byId, el, milliseconds, percent, put } from "./dom.js";
import { askEpisode, episode } from "./episode.js";
import { matrixOf, startOrbit } from "./orbit.js";
import { on, tell } from "./state.js";
import { task } from "./task.js";

const NEAR_PX = 14;
const FRUSTUM_M = 0.22;
const SHOWN_FRAMES = 4;
/** From little to much attention, on a dark ground. */
const [LITTLE, MUCH] = [[96, 116, 150], [255, 190, 70]];

/** @type {any} */
let view = null;
/** @type {{token: any, rank: number, x: number, y: number, size: number}[]} */
let drawn = [];
let lit = -1;
/** What is looked at: an episode and how many frames of it, until somebody moves the view. */
let fitted = "";
let moved = false;
/** @type {number[][]} lowest and highest of most places, along the axes of the screen */
let extent = [];
let opened = false;

const dot = (/** @type {number[]} */ a, /** @type {number[]} */ b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (/** @type {number[]} */ a, /** @type {number[]} */ b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const plus = (/** @type {number[]} */ a, /** @type {number[]} */ b, /** @type {number} */ by) => a.map((value, at) => value + by * b[at]);
const unit = (/** @type {number[]} */ a) => a.map((value) => value / Math.max(Math.hypot(...a), 1e-9));

/** Tokens by attention, the one that was read most first; without attention, in their order. */
function ranked() {
  const tokens = episode.walk.tokens.filter((/** @type {any} */ token) => token.place);
  return [...tokens].sort((a, b) => (b.attention ?? 0) - (a.attention ?? 0));
}

/** Axes of the screen in the world: right, up, towards the viewer; up is the mean of what was up in the pictures. */
function axes() {
  const cameras = episode.walk.cameras;
  const up = unit(cameras.reduce((/** @type {number[]} */ sum, /** @type {any} */ one) => plus(sum, one.up, 1), [0, 0, 1e-6]));
  const ahead = cameras[0]?.forward ?? [0, 1, 0];
  const level = plus(ahead, up, -dot(ahead, up));
  const forward = unit(Math.hypot(...level) > 1e-3 ? level : cross(up, [1, 0.3, 0.2]));
  return [cross(forward, up), up, forward.map((value) => -value)];
}

/** Draw the walk as it is known now. */
function drawWalk() {
  const canvas = byId("walk");
  byId("walk-box").hidden = !episode.walk;
  if (!episode.walk || !canvas.clientWidth) return;
  const [tokens, rotation] = [ranked(), axes()];
  const turned = (/** @type {number[]} */ place) => rotation.map((axis) => dot(axis, place));
  if (!fitted.startsWith(`${episode.id} `)) moved = false;
  if (!moved && fitted !== `${episode.id} ${episode.frames.length}`) fit(canvas, [...tokens.map((token) => token.place), ...episode.walk.cameras.map((/** @type {any} */ one) => one.position)].map(turned));
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  Object.assign(canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const matrix = matrixOf(view, width / height);
  const onScreen = (/** @type {number[]} */ place, is_turned = false) => {
    const [x, y, z] = is_turned ? place : turned(place);
    const of = (/** @type {number} */ row) => matrix[row] * x + matrix[4 + row] * y + matrix[8 + row] * z + matrix[12 + row];
    const w = of(3);
    return w <= 0.05 ? null : { x: (of(0) / w / 2 + 0.5) * width, y: (0.5 - of(1) / w / 2) * height, w };
  };
  drawFloor(pen, onScreen);
  drawDots(pen, tokens, onScreen, height);
  drawPath(pen, onScreen);
  if (lit >= 0) ring(pen);
}

/** Look at all of a walk from behind and above. @param {HTMLElement} canvas @param {number[][]} places along the axes of the screen */
function fit(canvas, places) {
  extent = [0, 1, 2].map((axis) => {
    const values = places.map((place) => place[axis]).sort((a, b) => a - b);
    return [values[Math.floor(values.length * 0.02)], values[Math.ceil(values.length * 0.98) - 1]];
  });
  const target = extent.map(([low, high]) => (low + high) / 2);
  const distance = Math.hypot(...extent.map(([low, high]) => high - low)) * 1.05 + 0.5;
  const next = { yaw: 0.5, pitch: 0.65, distance, target };
  const home = { ...next, target: [...target] };
  if (view) Object.assign(view, next, { home });
  else startOrbit(canvas, (view = { ...next, home }), drawWalk);
  fitted = `${episode.id} ${episode.frames.length}`;
}

/** Lines a metre apart below everything. @param {any} pen @param {(place: number[], is_turned: boolean) => any} onScreen */
function drawFloor(pen, onScreen) {
  const [[left, right], [low], [far, near]] = extent;
  const step = Math.ceil((right - left + near - far) / 40) || 1;
  pen.strokeStyle = "rgb(255 255 255 / 0.14)";
  pen.lineWidth = 1;
  const line = (/** @type {number[]} */ from, /** @type {number[]} */ to) => {
    const [a, b] = [onScreen(from, true), onScreen(to, true)];
    if (!a || !b) return;
    pen.beginPath();
    pen.moveTo(a.x, a.y);
    pen.lineTo(b.x, b.y);
    pen.stroke();
  };
  const [x0, x1, z0, z1] = [Math.floor(left), Math.ceil(right), Math.floor(far), Math.ceil(near)];
  for (let x = x0; x <= x1; x += step) line([x, low, z0], [x, low, z1]);
  for (let z = z0; z <= z1; z += step) line([x0, low, z], [x1, low, z]);
}

/** @param {any} pen @param {any[]} tokens @param {(place: number[]) => any} onScreen @param {number} height */
function drawDots(pen, tokens, onScreen, height) {
  const most = Math.max(...tokens.map((token) => token.attention ?? 0), 1e-9);
  const by = byId("walk-colour").value;
  drawn = tokens.map((token, rank) => {
    const share = (token.attention ?? 0) / most;
    const base = 0.03 + 0.06 * share;
    const at = onScreen(token.place) ?? { x: -99, y: -99, w: 99 };
    const colour = colourOf(token, share, by);
    return { token, rank, x: at.x, y: at.y, w: at.w, size: Math.min(Math.max((base * height) / at.w, 2), 16), colour };
  });
  for (const one of [...drawn].sort((a, b) => /** @type {any} */ (b).w - /** @type {any} */ (a).w)) {
    pen.fillStyle = css(/** @type {any} */ (one).colour, 0.92);
    pen.beginPath();
    pen.arc(one.x, one.y, one.size, 0, 7);
    pen.fill();
  }
}

/** @param {any} token @param {number} share of the most attention @param {string} by @returns {number[]} */
function colourOf(token, share, by) {
  if (by === "frame") return groupColour(token.frames[0]);
  if (by === "picture") return (token.colour ??= inPicture(token));
  return LITTLE.map((value, channel) => value + share * (MUCH[channel] - value));
}

/** The colour of a token in the first of its frames. @param {any} token @returns {number[]} */
function inPicture(token) {
  const at = placeIn(token.frames[0], token.place);
  const picture = episode.frames[token.frames[0]]?.picture;
  if (!at || !picture) return LITTLE;
  return [...picture.getContext("2d", { willReadFrequently: true }).getImageData(Math.round(at.x), Math.round(at.y), 1, 1).data].slice(0, 3);
}

/** Where a place is in the small picture of a frame; null: behind the camera, or the frame is not known. @param {number} number @param {number[]} place */
function placeIn(number, place) {
  const seen = episode.frames[number];
  const camera = episode.walk.cameras.find((/** @type {any} */ one) => one.frame === number);
  if (!seen || !camera) return null;
  const off = plus(place, camera.position, -1);
  const [across, down, ahead] = [dot(off, cross(camera.forward, camera.up)), -dot(off, camera.up), dot(off, camera.forward)];
  if (ahead <= 0) return null;
  const { fx, fy, cx, cy } = lensOf(seen);
  return { x: (seen.picture.width * (fx * (across / ahead) + cx)) / seen.width, y: (seen.picture.height * (fy * (down / ahead) + cy)) / seen.height };
}

/** @param {any} pen @param {(place: number[]) => any} onScreen */
function drawPath(pen, onScreen) {
  const cameras = episode.walk.cameras;
  const line = (/** @type {number[][]} */ places) => {
    pen.beginPath();
    for (const at of places.map((place) => onScreen(place))) if (at) pen.lineTo(at.x, at.y);
    pen.stroke();
  };
  pen.strokeStyle = "#7ea6ff";
  pen.lineWidth = 2.5;
  line(cameras.map((/** @type {any} */ one) => one.position));
  const used = new Set(lit >= 0 ? drawn[lit].token.frames : []);
  cameras.forEach((/** @type {any} */ one, /** @type {number} */ at) => {
    const right = cross(one.forward, one.up);
    const corner = (/** @type {number} */ across, /** @type {number} */ down) => plus(plus(plus(one.position, one.forward, FRUSTUM_M), right, 0.6 * FRUSTUM_M * across), one.up, 0.45 * FRUSTUM_M * down);
    const corners = [corner(-1, 1), corner(1, 1), corner(1, -1), corner(-1, -1)];
    pen.strokeStyle = used.has(one.frame) ? "#fff" : at === cameras.length - 1 ? "#ffd58a" : "#7ea6ff";
    pen.lineWidth = used.has(one.frame) ? 2.5 : 1.2;
    line([...corners, corners[0]]);
    for (const each of corners) line([one.position, each]);
  });
}

/** @param {any} pen */
function ring(pen) {
  const { x, y, size } = drawn[lit];
  pen.strokeStyle = "#fff";
  pen.lineWidth = 2.5;
  pen.beginPath();
  pen.arc(x, y, size + 3, 0, 7);
  pen.stroke();
}

/** Light up a token and show where it comes from. @param {number} rank */
function light(rank) {
  if (rank === lit) return;
  lit = rank;
  describe();
  drawWalk();
}

function describe() {
  const place = byId("walk-token");
  if (lit < 0) return put(place, el("p", { class: "note" }, "Point at a dot, or go through the tokens, to see the frames it came from."));
  const { token, rank } = drawn[lit];
  const where = token.place.map((/** @type {number} */ value) => value.toFixed(2)).join(", ");
  const read = token.attention === null ? "" : `, ${(100 * token.attention).toPrecision(2)} % of the attention (number ${rank + 1} of ${drawn.length})`;
  const frames = token.frames.length === 1 ? `frame ${token.frames[0]}` : `frames ${token.frames.join(", ")}`;
  const shown = token.frames.slice(0, SHOWN_FRAMES).filter((/** @type {number} */ frame) => episode.frames[frame]);
  put(place, el("p", {}, el("strong", {}, `Token of ${frames}`), ` at ${where} m${read}`), el("div", { class: "row" }, ...shown.map((/** @type {number} */ frame) => thumbnail(frame, token.place))));
}

/** A small picture of a frame, with a ring where a place is in it. @param {number} number @param {number[]} place */
function thumbnail(number, place) {
  const seen = episode.frames[number];
  const canvas = el("canvas", { class: "thumbnail", role: "img", "aria-label": `Frame ${number}, ${seen.name}`, width: seen.picture.width, height: seen.picture.height });
  const pen = canvas.getContext("2d");
  pen.drawImage(seen.picture, 0, 0);
  const at = placeIn(number, place);
  if (at) {
    pen.strokeStyle = "#ffbe46";
    pen.lineWidth = 3;
    pen.beginPath();
    pen.arc(at.x, at.y, 9, 0, 7);
    pen.stroke();
  }
  return canvas;
}

/** @param {import("./episode.js").Seen} seen */
function lensOf({ width, height }) {
  const { lens } = episode;
  if (!("hfov" in lens)) return lens;
  const focal = width / 2 / Math.tan((lens.hfov * Math.PI) / 360);
  return { fx: focal, fy: focal, cx: width / 2, cy: height / 2 };
}

/** @param {number} by */
function step(by) {
  if (drawn.length) light(lit < 0 ? 0 : (lit + by + drawn.length) % drawn.length);
}

/** Show the part of the page with the walk; listens to it from the first time on. */
export function openWalk() {
  if (opened) return;
  opened = true;
  const canvas = byId("walk");
  canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!event.buttons) point(event);
  });
  canvas.addEventListener("pointerdown", point);
  byId("walk-next").addEventListener("click", () => step(1));
  byId("walk-previous").addEventListener("click", () => step(-1));
  for (const kind of ["pointerdown", "wheel", "keydown"]) canvas.addEventListener(kind, () => (moved = true));
  byId("walk-colour").addEventListener("change", drawWalk);
  task({ start: byId("ask-walk"), cancel: byId("cancel-walk"), place: byId("walk-progress"), saying: "Asking about the walk", work: askWalk });
  new ResizeObserver(drawWalk).observe(canvas);
  on("walk", showWalk);
}

/** @param {AbortSignal} signal */
async function askWalk(signal) {
  const id = episode.id;
  const answer = await askEpisode(true, signal);
  if (episode.id !== id) return;
  episode.walk = answer.episode.walk;
  tell("walk");
  put(byId("walk-answer"), answer.answer || "(the model gave an empty answer)");
  put(byId("walk-asked"), `${answer.episode.visual_tokens} visual tokens of ${answer.episode.frames} frames read, ${percent(answer.confidence ?? 0)} sure, ${milliseconds(answer.timings_ms.total)}`);
}

/** The tokens are others now: nothing is lit. */
function showWalk() {
  lit = -1;
  byId("walk-box").hidden = !episode.walk;
  byId("walk-hint").hidden = Boolean(episode.walk);
  put(byId("walk-answer"));
  put(byId("walk-asked"));
  if (!episode.walk) return;
  drawWalk();
  describe();
  const { cameras, tokens } = episode.walk;
  const places = tokens.filter((/** @type {any} */ token) => token.place).length;
  const without = tokens.length - places;
  put(byId("walk-facts"), `${cameras.length} cameras, ${places} tokens in their places${without ? `, ${without} without a place` : ""}`);
  const known = tokens.some((/** @type {any} */ token) => token.attention !== null);
  byId("walk").setAttribute("aria-label", `The walk in 3D: ${cameras.length} cameras and ${places} tokens${known ? ", those larger and yellow that the answer read most" : ""}. Drag or use the arrow keys to turn, plus and minus to come nearer, Home to go back.`);
}

/** @param {PointerEvent} event */
function point(event) {
  const box = byId("walk").getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let [best, apart] = [-1, NEAR_PX];
  drawn.forEach((one, at) => {
    const now = Math.hypot(one.x - x, one.y - y) - one.size / 2;
    if (now < apart) [best, apart] = [at, now];
  });
  if (best >= 0 || event.pointerType === "mouse") light(best);
}
