/**
 * Colours of depth and of groups.
 */

/** Control points of a map from near (bright) to far (dark) whose lightness falls evenly: after viridis' order. */
const NEAR_TO_FAR = [
  [253, 231, 37],
  [122, 209, 81],
  [34, 168, 132],
  [42, 120, 142],
  [65, 68, 135],
  [68, 1, 84],
];
export const HOLE = [178, 34, 102];
const GOLDEN_ANGLE = 0.618033988749895;

/**
 * The colour of a share of the way from near (0) to far (1).
 * @param {number} share
 * @returns {number[]} red, green, blue from 0 to 255
 */
export function depthColour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (NEAR_TO_FAR.length - 1);
  const low = Math.min(Math.floor(at), NEAR_TO_FAR.length - 2);
  return NEAR_TO_FAR[low].map((value, channel) => value + (at - low) * (NEAR_TO_FAR[low + 1][channel] - value));
}

/**
 * The colour of a group: neighbouring numbers get hues far apart, and it stays while the first patch stays.
 * @param {number} first the first patch of the group
 * @returns {number[]}
 */
export function groupColour(first) {
  const hue = (first * GOLDEN_ANGLE) % 1;
  const light = 0.55 + 0.12 * ((first * 7) % 3 - 1);
  const part = (/** @type {number} */ shift) => {
    const at = (shift + hue * 12) % 12;
    return Math.round(255 * (light - 0.85 * Math.min(light, 1 - light) * Math.max(-1, Math.min(at - 3, 9 - at, 1))));
  };
  return [part(0), part(8), part(4)];
}

/** @param {number[]} colour @param {number} [alpha] */
export function css(colour, alpha = 1) {
  return `rgb(${colour.map(Math.round).join(" ")} / ${alpha})`;
}

/**
 * How far away values are, as a share from near to far: in metres, or in the order of the numbers.
 * @param {(number | null)[]} values
 * @param {string} kind metric, inverse or relative
 */
export function nearToFar(values, kind) {
  const sign = kind === "inverse" ? -1 : 1;
  const valid = /** @type {number[]} */ (values.filter((value) => value !== null)).map((value) => sign * value);
  valid.sort((a, b) => a - b);
  const at = (/** @type {number} */ share) => valid[Math.round(share * (valid.length - 1))] ?? 0;
  const [low, high] = [at(0.02), at(0.98)];
  return {
    near: sign * low,
    far: sign * high,
    share: (/** @type {number} */ value) => (sign * value - low) / Math.max(high - low, 1e-9),
  };
}
