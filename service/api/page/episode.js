/**
 * An episode: frames are pushed one by one and the same question is asked after each; then the walk can be asked more.
 */
import { ask, Failure } from "./api.js";
import { byId } from "./dom.js";
import { readWalk } from "./folder.js";
import { answerFields, mergeFields, viewFields } from "./settings.js";
import { tell } from "./state.js";

const THUMBNAIL_PX = 200;
/** What no answer of an episode knows. */
const ONLY_ALONE = ["cache", "views", "timeout_s"];

/**
 * @typedef {object} Seen
 * @property {string} name
 * @property {HTMLCanvasElement} picture small
 * @property {number} width of the whole picture
 * @property {number} height
 */
/** The episode that the page shows. @type {{id: string | null, frames: Seen[], walk: any, lens: any}} */
export const episode = { id: null, frames: [], walk: null, lens: null };

/** Forget the episode, here and on the server. */
export async function forget() {
  const id = episode.id;
  Object.assign(episode, { id: null, frames: [], walk: null, lens: null });
  tell("walk");
  if (id) await ask(`/episodes/${id}`, { verb: "DELETE" }).catch(() => undefined);
}

window.addEventListener("pagehide", () => forget());

/**
 * Walk through a folder.
 * @param {File[]} files
 * @param {AbortSignal} signal
 * @param {(name: string, answer: any, timings: {total: number, vision: number}) => void} show
 * @param {(text: string) => void} say
 */
export async function walkThrough(files, signal, show, say) {
  say("reading the folder");
  const { frames, intrinsics, depthIntrinsics, convention } = await readWalk(files);
  if (!frames.some((frame) => frame.pose)) {
    throw new Failure("no_poses", "None of the pictures has a pose: a text file of 16 numbers with its name, or groundtruth.txt.");
  }
  await forget();
  const lens = intrinsics ?? { hfov: Number(byId("walk-hfov").value) };
  const begun = await ask("/episodes", {
    json: {
      ...without(mergeFields(), ["order"]),
      ...without(viewFields(), ONLY_ALONE),
      merge_frames: byId("walk-method").value,
      ...(byId("walk-method").value !== "none" && { max_visual_tokens: Number(byId("walk-budget").value) }),
      convention: byId("walk-convention").value || convention,
      intrinsics: lens,
      ...(depthIntrinsics && { depth_intrinsics: depthIntrinsics }),
    },
    signal,
  });
  Object.assign(episode, { id: begun.id, lens });
  for (const [at, frame] of frames.entries()) {
    if (signal.aborted) return;
    say(`frame ${at + 1} of ${frames.length}`);
    const taken = await push(begun.id, frame, signal);
    episode.frames[taken.frame] = await small(frame);
    const answer = await askEpisode(at === frames.length - 1, signal);
    const total = taken.timings_ms.total + answer.timings_ms.total;
    show(frame.name, answer, { total, vision: taken.timings_ms.vision ?? 0 });
    episode.walk = answer.episode.walk ?? (await ask(`/episodes/${begun.id}?places=true`, { signal })).walk;
    tell("walk");
  }
}

/**
 * Ask the question of the page about the episode.
 * @param {boolean} places whether to find out what the answer's attention read
 * @param {AbortSignal} [signal]
 */
export async function askEpisode(places, signal) {
  const fields = { question: byId("question").value, confidence: true, places, ...without(answerFields(), ONLY_ALONE) };
  return ask(`/episodes/${episode.id}/vqa`, { json: fields, signal });
}

/** @param {string} id @param {import("./folder.js").WalkFrame} frame @param {AbortSignal} signal */
function push(id, frame, signal) {
  const form = new FormData();
  form.append("image", frame.image, "frame.png");
  if (frame.depth) form.append("depth", frame.depth, frame.depth.name);
  if (frame.pose) form.append("pose", JSON.stringify(frame.pose));
  if (frame.timestamp !== null) form.append("timestamp", String(frame.timestamp));
  return ask(`/episodes/${id}/frames`, { form, signal });
}

/** @param {Record<string, any>} fields @param {string[]} names @returns {Record<string, any>} */
function without(fields, names) {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)));
}

/** @param {import("./folder.js").WalkFrame} frame @returns {Promise<Seen>} */
async function small(frame) {
  const bitmap = await createImageBitmap(frame.image);
  const picture = document.createElement("canvas");
  picture.width = THUMBNAIL_PX;
  picture.height = Math.round((THUMBNAIL_PX * bitmap.height) / bitmap.width);
  picture.getContext("2d", { willReadFrequently: true })?.drawImage(bitmap, 0, 0, picture.width, picture.height);
  const seen = { name: frame.name, picture, width: bitmap.width, height: bitmap.height };
  bitmap.close();
  return seen;
}
