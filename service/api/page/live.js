/**
 * Live: one question again and again, about the webcam, the pictures of a folder, or an episode that grows, and how long answers take.
 */
import { Failure } from "./api.js";
import { stream } from "./ask.js";
import { openCamera, pictureOf } from "./camera.js";
import { byId, el, milliseconds, put } from "./dom.js";
import { showFailure } from "./failures.js";
import { latencyPlot } from "./plots.js";
import { mergeFields, viewFields, answerFields } from "./settings.js";

const KEPT = 60;
/** @type {{total: number, vision: number}[]} */
const points = [];
/** @type {AbortController | null} */
let running = null;

/**
 * Ask about one picture after another until there is none, or somebody stops.
 * @param {AsyncGenerator<{image: Blob, depth: File | null, name: string}>} pictures
 * @param {AbortSignal} signal
 */
async function run(pictures, signal) {
  for await (const { image, depth, name } of pictures) {
    if (signal.aborted) return;
    const form = new FormData();
    const fields = { question: byId("question").value, ...mergeFields(), ...viewFields(), ...answerFields() };
    for (const [key, value] of Object.entries(fields)) form.append(key, typeof value === "string" ? value : JSON.stringify(value));
    form.append("image", image, "frame.jpg");
    if (depth) form.append("depth", depth, depth.name);
    const answer = await stream(form, signal, () => undefined);
    show(name, answer, { total: answer.timings_ms.total, vision: answer.timings_ms.vision ?? 0 });
  }
}

/** @param {string} name @param {any} answer @param {{total: number, vision: number}} timings */
function show(name, answer, { total, vision }) {
  points.push({ total, vision });
  points.splice(0, points.length - KEPT);
  put(byId("live-plot"), latencyPlot(points));
  put(byId("live-answer"), answer.answer);
  const line = el("li", {}, el("span", { class: "said" }, answer.answer), ` ${milliseconds(total)} · ${name}`);
  const list = byId("live-list");
  list.prepend(line);
  while (list.children.length > KEPT) list.lastChild.remove();
}

/** @param {AbortSignal} signal */
async function* ofCamera(signal) {
  const video = byId("live-video");
  video.hidden = false;
  const close = await openCamera(video);
  try {
    for (let at = 1; !signal.aborted; at += 1) {
      yield { image: await pictureOf(video), depth: null, name: `picture ${at}` };
      await new Promise((done) => setTimeout(done, 1000 * Number(byId("live-pause").value)));
    }
  } finally {
    close();
    video.hidden = true;
  }
}

/**
 * Pictures in the order of their names, each with the depth file that has its name, or its number.
 * @param {File[]} files
 */
export function pairs(files) {
  const path = (/** @type {File} */ file) => file.webkitRelativePath || file.name;
  const is_depth = (/** @type {File} */ file) => /depth|disp/i.test(path(file).split("/").slice(-2).join("/")) || /\.(npy|npz|exr|pfm|pgm|tiff?)$/i.test(file.name);
  const stem = (/** @type {File} */ file) => path(file).split("/").slice(-1)[0].replace(/\.[^.]+$/, "").replace(/[-_.]?(rgb|colou?r|depth|disp|image|frame)[-_.]?/gi, "");
  const in_order = [...files].sort((a, b) => path(a).localeCompare(path(b), "en", { numeric: true }));
  const depths = new Map(in_order.filter(is_depth).map((file) => [stem(file), file]));
  return in_order.filter((file) => !is_depth(file) && file.type.startsWith("image/")).map((image) => ({ image, depth: depths.get(stem(image)) ?? null, name: path(image) }));
}

/** @param {File[]} files */
async function* ofFiles(files) {
  const found = pairs(files);
  if (!found.length) throw new Failure("no_pictures", "There is no JPEG, PNG or WebP among these files.");
  const with_all = found.every((one) => one.depth);
  for (const one of found) yield with_all ? one : { ...one, depth: null };
}

/** Push the frames of a folder into an episode, asking after each, and show the walk. @param {File[]} files @param {AbortSignal} signal */
async function walk(files, signal) {
  const [{ walkThrough }, { openWalk }] = await Promise.all([import("./episode.js"), import("./walk.js")]);
  openWalk();
  await walkThrough(files, signal, show, (text) => put(byId("live-progress"), text));
}

/** @param {(signal: AbortSignal) => Promise<void>} work */
async function start(work) {
  running?.abort();
  const mine = (running = new AbortController());
  byId("live-stop").hidden = false;
  put(byId("live-problem"));
  points.length = 0;
  put(byId("live-list"));
  try {
    await work(mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) showFailure(byId("live-problem"), error, () => start(work));
  } finally {
    if (running === mine) {
      running = null;
      byId("live-stop").hidden = true;
      put(byId("live-progress"));
    }
  }
}

export function startLive() {
  byId("live-camera").addEventListener("click", () => start((signal) => run(ofCamera(signal), signal)));
  byId("live-folder").addEventListener("click", () => byId("live-files").click());
  chosen("live-files", (files) => start((signal) => run(ofFiles(files), signal)));
  byId("live-episode").addEventListener("click", () => byId("episode-files").click());
  chosen("episode-files", (files) => start((signal) => walk(files, signal)));
  byId("live-stop").addEventListener("click", () => running?.abort());
}

/** @param {string} id of a file input @param {(files: File[]) => void} take */
function chosen(id, take) {
  byId(id).addEventListener("change", (/** @type {any} */ event) => {
    const files = [...event.target.files];
    event.target.value = "";
    if (files.length) take(files);
  });
}
