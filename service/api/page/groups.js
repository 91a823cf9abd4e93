/**
 * Draw the merged groups of a view on its picture, as the papers' figures do.
 */
import { css, groupColour } from "./colours.js";

/** @typedef {{layer: number, groups: number[], sizes: number[]}} Layer */
/** @typedef {{box: number[], grid: [number, number], depth: (number | null)[] | null, layers: Layer[]}} View */

/**
 * The groups that a layer leaves behind; -1 is before the first layer, where every patch is its own.
 * @param {View} view
 * @param {number} layer
 * @returns {Layer}
 */
export function groupsAt(view, layer) {
  const found = view.layers.filter((one) => one.layer <= layer).at(-1);
  if (found) return found;
  const count = view.grid[0] * view.grid[1];
  return { layer: -1, groups: Array.from({ length: count }, (_, at) => at), sizes: Array(count).fill(1) };
}

/** The first patch of every group. @param {Layer} layer @returns {number[]} */
export function leaders(layer) {
  /** @type {number[]} */
  const first = [];
  layer.groups.forEach((group, patch) => {
    if (group >= 0 && first[group] === undefined) first[group] = patch;
  });
  return first;
}

/**
 * Mean depth of every group over its patches with depth.
 * @param {View} view
 * @param {Layer} layer
 * @returns {(number | null)[]}
 */
export function groupDepth(view, layer) {
  const sums = layer.sizes.map(() => [0, 0]);
  layer.groups.forEach((group, patch) => {
    const depth = view.depth?.[patch];
    if (group >= 0 && depth !== null && depth !== undefined) {
      sums[group][0] += depth;
      sums[group][1] += 1;
    }
  });
  return sums.map(([sum, count]) => (count ? sum / count : null));
}

/** Mean colour of every patch of a view. @param {ImageBitmap} bitmap @param {View} view @returns {Uint8ClampedArray} */
function patchColours(bitmap, view) {
  const [rows, columns] = view.grid;
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const pen = /** @type {CanvasRenderingContext2D} */ (small.getContext("2d", { willReadFrequently: true }));
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, ...partOf(bitmap, view), 0, 0, columns, rows);
  return pen.getImageData(0, 0, columns, rows).data;
}

/** The part of the picture that a view shows. @param {ImageBitmap} bitmap @param {View} view @returns {[number, number, number, number]} */
function partOf(bitmap, view) {
  const [left, top, right, bottom] = view.box;
  return [left * bitmap.width, top * bitmap.height, (right - left) * bitmap.width, (bottom - top) * bitmap.height];
}

/**
 * Draw one view with its groups.
 * @param {any} canvas
 * @param {ImageBitmap} bitmap
 * @param {View} view
 * @param {number} number the layer
 * @param {{fill: boolean, lit: number}} look whether groups are filled with their mean colour; a patch whose group is lit
 */
export function drawGroups(canvas, bitmap, view, number, look) {
  const [rows, columns] = view.grid;
  const part = partOf(bitmap, view);
  const width = 768;
  const height = Math.max(1, Math.round((width * part[3]) / part[2]));
  canvas.width = width;
  canvas.height = height;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.drawImage(bitmap, ...part, 0, 0, width, height);
  const layer = groupsAt(view, number);
  const first = leaders(layer);
  const x = (/** @type {number} */ column) => Math.round((column * width) / columns);
  const y = (/** @type {number} */ row) => Math.round((row * height) / rows);
  const means = look.fill ? meanColours(patchColours(bitmap, view), layer) : null;
  const lit = look.lit >= 0 ? layer.groups[look.lit] : -2;
  for (let patch = 0; patch < layer.groups.length; patch += 1) {
    const [row, column] = [Math.floor(patch / columns), patch % columns];
    const box = /** @type {const} */ ([x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row)]);
    const group = layer.groups[patch];
    if (group < 0) hatch(pen, box);
    else if (means && layer.sizes[group] > 1) rectangle(pen, css(means[group]), box);
    if (lit !== -2 && group !== lit) rectangle(pen, "rgb(0 0 0 / 0.55)", box);
  }
  drawEdges(pen, layer, first, { rows, columns, x, y, lit });
}

/** @param {CanvasRenderingContext2D} pen @param {string} colour @param {readonly [number, number, number, number]} box */
function rectangle(pen, colour, box) {
  pen.fillStyle = colour;
  pen.fillRect(...box);
}

/** @param {CanvasRenderingContext2D} pen @param {readonly [number, number, number, number]} box */
function hatch(pen, box) {
  const [left, top, width, height] = box;
  rectangle(pen, "rgb(0 0 0 / 0.7)", box);
  pen.strokeStyle = "rgb(150 150 150)";
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.moveTo(left, top + height);
  pen.lineTo(left + width, top);
  pen.stroke();
}

/** @param {Uint8ClampedArray} colours of patches, four numbers each @param {Layer} layer @returns {number[][]} */
function meanColours(colours, layer) {
  const sums = layer.sizes.map(() => [0, 0, 0]);
  layer.groups.forEach((group, patch) => {
    if (group >= 0) for (let channel = 0; channel < 3; channel += 1) sums[group][channel] += colours[4 * patch + channel];
  });
  return sums.map((sum, group) => sum.map((value) => value / layer.sizes[group]));
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Layer} layer
 * @param {number[]} first
 * @param {{rows: number, columns: number, x: (at: number) => number, y: (at: number) => number, lit: number}} grid
 */
function drawEdges(pen, layer, first, { rows, columns, x, y, lit }) {
  const groups = layer.groups;
  for (let patch = 0; patch < groups.length; patch += 1) {
    const group = groups[patch];
    if (group < 0 || (layer.sizes[group] === 1 && group !== lit)) continue;
    const [row, column] = [Math.floor(patch / columns), patch % columns];
    const thick = group === lit ? 5 : 2;
    pen.fillStyle = group === lit ? "#fff" : css(groupColour(first[group]));
    const [left, top, right, bottom] = [x(column), y(row), x(column + 1), y(row + 1)];
    if (row === 0 || groups[patch - columns] !== group) pen.fillRect(left, top, right - left, thick);
    if (row === rows - 1 || groups[patch + columns] !== group) pen.fillRect(left, bottom - thick, right - left, thick);
    if (column === 0 || groups[patch - 1] !== group) pen.fillRect(left, top, thick, bottom - top);
    if (column === columns - 1 || groups[patch + 1] !== group) pen.fillRect(right - thick, top, thick, bottom - top);
  }
}
