/**
 * Where frames come from: files, the camera, bundled rooms, and new rooms by seed.
 */
import { ask, Failure } from "./api.js";
import { byId, el, put } from "./dom.js";
import { showFailure } from "./failures.js";
import { on, state, tell } from "./state.js";
import { task } from "./task.js";

const BUNDLED = [10000040, 10000008, 10000029, 10000014];
/** Seeds of new rooms: a million that no split of RoomQA uses. */
const NEW = { first: 30_000_000, count: 1_000_000 };
const DEPTH_ENDINGS = /\.(npy|npz|exr|pfm|pgm|tiff?|bin|depth|dat|raw)$/i;

/**
 * Show another frame; its depth is kept only if it came with it.
 * @param {Partial<import("./state.js").Frame> & {image: Blob, name: string}} given
 */
export async function showFrame(given) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(given.image);
  } catch {
    throw new Failure("bad_image", "This browser cannot read the picture: choose a JPEG, PNG or WebP.");
  }
  state.frame = { imageName: "frame.png", depth: null, depthName: null, questions: [], camera: null, ...given, bitmap };
  state.preset = "";
  const canvas = byId("picture");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  canvas.setAttribute("aria-label", `The picture: ${given.name}, ${bitmap.width} by ${bitmap.height} pixels`);
  put(byId("frame-name"), given.name);
  byId("drop-hint").hidden = true;
  tell("frame");
}

/**
 * Draw a synthetic room on the server and show it.
 * @param {number} seed
 * @param {AbortSignal} [signal]
 */
export async function showRoom(seed, signal) {
  /** @type {Record<string, unknown>} */
  const json = { seed, depth_camera: byId("depth-camera").value };
  const condition = byId("condition").value;
  if (condition) Object.assign(json, { condition, strength: Number(byId("strength").value) });
  const room = await ask("/rooms", { json, signal });
  byId("seed").value = String(seed);
  await showFrame({
    name: `Room ${seed}${condition ? `, ${condition}` : ""}`,
    image: blobOf(room.image),
    imageName: "frame.png",
    depth: blobOf(room.depth),
    depthName: "depth.png",
    questions: room.questions,
    camera: room.camera,
  });
}

/** @param {string} base64 */
function blobOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

/** @param {File[]} files a picture, a depth file, or both; several of one kind: the first */
export async function takeFiles(files) {
  const depth = files.find((file) => isDepth(file, files));
  const image = files.find((file) => file !== depth && file.type.startsWith("image/"));
  if (image) {
    const more = depth ? { depth, depthName: depth.name } : {};
    await showFrame({ name: image.name, image, imageName: image.name, ...more });
  } else if (depth && state.frame) {
    state.frame.depth = depth;
    state.frame.depthName = depth.name;
    state.preset = "";
    tell("frame");
  } else if (depth) {
    throw new Failure("image_count", "Open the picture first, or both files together.");
  }
}

/** @param {File} file @param {File[]} all */
function isDepth(file, all) {
  if (DEPTH_ENDINGS.test(file.name) || !file.type.startsWith("image/")) return true;
  return all.length > 1 && /depth|disp/i.test(file.name);
}

export function startFrames() {
  const place = byId("frame-problem");
  const safely = (/** @type {() => Promise<void>} */ work) => {
    put(place);
    const run = () => work().then(() => put(place), (error) => showFailure(place, error, run));
    return run();
  };
  const seed = byId("seed");
  const wanted = () => (seed.value === "" ? NEW.first + Math.floor(Math.random() * NEW.count) : Number(seed.value));
  let next = () => NEW.first + Math.floor(Math.random() * NEW.count);
  task({
    start: byId("new-room"),
    cancel: byId("cancel-room"),
    place,
    saying: "Drawing a room",
    work: (signal) => showRoom(next(), signal),
  });
  byId("this-room").addEventListener("click", () => safely(() => showRoom(wanted())));
  for (const id of ["condition", "strength", "depth-camera"]) {
    byId(id).addEventListener("change", () => state.frame?.camera && safely(() => showRoom(wanted())));
  }
  const list = byId("bundled");
  BUNDLED.forEach((number, at) => list.append(el("option", { value: number }, `Bundled room ${at + 1}`)));
  list.addEventListener("change", () => list.value && safely(() => showRoom(Number(list.value))));
  byId("open-files").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", (/** @type {any} */ event) => {
    safely(() => takeFiles([...event.target.files])).finally(() => (event.target.value = ""));
  });
  byId("drop-depth").addEventListener("click", () => {
    if (!state.frame) return;
    Object.assign(state.frame, { depth: null, depthName: null });
    tell("frame");
  });
  startDrop(safely);
  on("frame", () => {
    byId("drop-depth").hidden = !state.frame?.depth;
    if (list.value !== seed.value) list.value = "";
  });
  return () => safely(() => showRoom(BUNDLED[0]));
}

/** @param {(work: () => Promise<void>) => Promise<void>} safely */
function startDrop(safely) {
  const zone = byId("drop");
  const stop = (/** @type {DragEvent} */ event) => event.preventDefault();
  document.addEventListener("dragover", stop);
  document.addEventListener("drop", stop);
  zone.addEventListener("dragover", () => zone.classList.add("over"));
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (/** @type {DragEvent} */ event) => {
    zone.classList.remove("over");
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length) safely(() => takeFiles(files));
  });
}
