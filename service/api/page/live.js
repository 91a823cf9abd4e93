/**
 * Live: one question again and again, about the webcam or the pictures of a folder, and how long answers take.
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
    show(name, await stream(form, signal, () => undefined));
  }
}

/** @param {string} name @param {any} answer */
function show(name, answer) {
  const { total, vision } = answer.timings_ms;
  points.push({ total, vision: vision ?? 0 });
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

/** @param {(signal: AbortSignal) => AsyncGenerator<any>} source */
async function start(source) {
  running?.abort();
  const mine = (running = new AbortController());
  byId("live-stop").hidden = false;
  put(byId("live-problem"));
  points.length = 0;
  put(byId("live-list"));
  try {
    await run(source(mine.signal), mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) showFailure(byId("live-problem"), error, () => start(source));
  } finally {
    if (running === mine) {
      running = null;
      byId("live-stop").hidden = true;
    }
  }
}

export function startLive() {
  byId("live-camera").addEventListener("click", () => start(ofCamera));
  byId("live-folder").addEventListener("click", () => byId("live-files").click());
  byId("live-files").addEventListener("change", (/** @type {any} */ event) => {
    const files = [...event.target.files];
    event.target.value = "";
    if (files.length) start(() => ofFiles(files));
  });
  byId("live-stop").addEventListener("click", () => running?.abort());
}
