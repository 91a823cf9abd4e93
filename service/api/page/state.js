/**
 * What the parts of the page share: the frame that is asked about, and who wants to hear of changes.
 */

/**
 * @typedef {object} Frame
 * @property {string} name
 * @property {Blob} image
 * @property {string} imageName
 * @property {Blob | null} depth
 * @property {string | null} depthName
 * @property {ImageBitmap} bitmap
 * @property {{question: string, answer: string, type: string}[]} questions
 * @property {{focal_px: number, size_px: number, centre_px: number[]} | null} camera
 */

/** @type {{frame: Frame | null, preset: string, values: any, unit: string | null, question: string}} */
export const state = { frame: null, preset: "", values: null, unit: null, question: "" };

/** @type {Map<string, Set<() => void>>} */
const listeners = new Map();

/** @param {"frame" | "depth" | "settings" | "answer" | "overlay" | "walk"} what @param {() => void} call */
export function on(what, call) {
  if (!listeners.has(what)) listeners.set(what, new Set());
  listeners.get(what)?.add(call);
}

/** @param {"frame" | "depth" | "settings" | "answer" | "overlay" | "walk"} what */
export function tell(what) {
  for (const call of listeners.get(what) ?? []) call();
}

/**
 * Put the files of the frame into a form, with fields; what is empty is left out.
 * @param {Record<string, any>} fields
 * @param {boolean} [withDepth]
 */
export function formOf(fields, withDepth = true) {
  const frame = /** @type {Frame} */ (state.frame);
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    form.append(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  form.append("image", frame.image, frame.imageName);
  if (withDepth && frame.depth) form.append("depth", frame.depth, frame.depthName ?? "depth.png");
  return form;
}
