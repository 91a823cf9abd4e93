/**
 * Frames of a walk out of a folder: pictures, depth files, poses and intrinsics, as ScanNet, OpenEQA and TUM lay them out.
 */
import { Failure } from "./api.js";
import { pairs } from "./live.js";

/**
 * @typedef {object} WalkFrame
 * @property {Blob} image
 * @property {File | null} depth
 * @property {string} name
 * @property {number[] | {position: number[], quaternion: number[]} | null} pose camera to world
 * @property {number | null} timestamp seconds
 */
/** @typedef {{fx: number, fy: number, cx: number, cy: number}} Intrinsics */
/** @typedef {{frames: WalkFrame[], intrinsics: Intrinsics | null, depthIntrinsics: Intrinsics | null, convention: string}} Walk */

const APART_S = 0.02;
const path = (/** @type {File} */ file) => file.webkitRelativePath || file.name;
const stem = (/** @type {string} */ name) => name.split("/").slice(-1)[0].replace(/\.[^.]+$/, "").replace(/[-_.]?(rgb|colou?r|depth|pose)$/i, "");
const numbers = (/** @type {string} */ text) => text.split(/[\s,]+/).filter(Boolean).map(Number);

/** @param {File[]} files @returns {Promise<Walk>} */
export async function readWalk(files) {
  const found = pairs(files);
  if (!found.length) throw new Failure("no_pictures", "There is no JPEG, PNG or WebP among these files.");
  const texts = files.filter((file) => /\.txt$/i.test(file.name));
  const track = texts.find((file) => /^(groundtruth|trajectory|poses)\.txt$/i.test(file.name));
  const frames = track ? alongTrack(found, files, lines(await track.text())) : await withPoses(found, texts);
  const depths = frames.filter((frame) => frame.depth).length;
  const same = depths === frames.length;
  return {
    frames: same ? frames : frames.map((frame) => ({ ...frame, depth: null })),
    intrinsics: await matrixNamed(texts, /^intrinsics?([-_]colou?r)?\.txt$/i),
    depthIntrinsics: await matrixNamed(texts, /^intrinsics?[-_]depth\.txt$/i),
    convention: track ? "tum" : "scannet",
  };
}

/** One text file of 16 numbers for each picture. @param {{image: Blob, depth: File | null, name: string}[]} found @param {File[]} texts */
async function withPoses(found, texts) {
  const byStem = new Map(texts.map((file) => [stem(path(file)), file]));
  return Promise.all(
    found.map(async (one) => {
      const file = byStem.get(stem(one.name));
      const values = file ? numbers(await file.text()) : [];
      const known = values.length === 16 && values.every(Number.isFinite);
      return { ...one, pose: known ? values : null, timestamp: null };
    }),
  );
}

/** @param {string} text @returns {number[][]} */
function lines(text) {
  const rows = text.split("\n").filter((line) => line.trim() && !line.startsWith("#"));
  return rows.map(numbers).filter((row) => row.length === 8 && row.every(Number.isFinite));
}

/**
 * Rows of time, place and quaternion, and files whose names are times.
 * @param {{image: Blob, depth: File | null, name: string}[]} found
 * @param {File[]} files
 * @param {number[][]} rows
 */
function alongTrack(found, files, rows) {
  const timeOf = (/** @type {string} */ name) => Number(stem(name));
  const depths = files.filter((file) => /(^|\/)depth\/[^/]+\.png$/i.test(path(file)));
  return found.map((one) => {
    const time = timeOf(one.name);
    const row = nearest(rows, (each) => each[0], time);
    const depth = one.depth ?? nearest(depths, (file) => timeOf(path(file)), time);
    return { ...one, depth, pose: row && { position: row.slice(1, 4), quaternion: row.slice(4) }, timestamp: Number.isFinite(time) ? time : null };
  });
}

/**
 * What is nearest in time, and near enough.
 * @template T
 * @param {T[]} all
 * @param {(one: T) => number} timeOf
 * @param {number} time
 * @returns {T | null}
 */
function nearest(all, timeOf, time) {
  let [best, apart] = [/** @type {T | null} */ (null), APART_S];
  for (const one of all) {
    const now = Math.abs(timeOf(one) - time);
    if (now <= apart) [best, apart] = [one, now];
  }
  return best;
}

/** @param {File[]} texts @param {RegExp} name @returns {Promise<Intrinsics | null>} */
async function matrixNamed(texts, name) {
  const file = texts.find((one) => name.test(one.name));
  const values = file ? numbers(await file.text()) : [];
  const width = { 9: 3, 12: 4, 16: 4 }[values.length];
  if (!width || !values.every(Number.isFinite)) return null;
  return { fx: values[0], fy: values[width + 1], cx: values[2], cy: values[width + 2] };
}
