/**
 * Ask: the answer as it streams in, how sure the model is, and where the time went.
 */
import { events, failureOf, Failure, send } from "./api.js";
import { showCode } from "./code.js";
import { byId, el, milliseconds, percent, put } from "./dom.js";
import { meter, stageBar } from "./plots.js";
import { answerFields, mergeFields, viewFields } from "./settings.js";
import { formOf, on, state, tell } from "./state.js";
import { task } from "./task.js";

/** The fields of the question as it stands on the page. @returns {Record<string, any>} */
export function questionFields() {
  return { question: byId("question").value, ...mergeFields(), ...viewFields(), ...answerFields() };
}

/** Refuse to ask without a frame or a question. */
export function requireFrame() {
  if (!state.frame) throw new Failure("image_count", "There is no frame yet: take a new room, or open a picture.");
}

/**
 * Ask a question about a frame and stream the answer.
 * @param {FormData} form
 * @param {AbortSignal} signal
 * @param {(text: string) => void} heard called with the whole text so far
 * @returns {Promise<any>} the whole answer
 */
export async function stream(form, signal, heard) {
  form.append("stream", "true");
  form.append("confidence", "true");
  let text = "";
  for await (const { name, data } of events(await send("/vqa", { form, signal }))) {
    if (name === "text") heard((text += data.text));
    else if (name === "answer") return data;
    else if (name === "error") throw failureOf(data.error);
  }
  throw new Failure("unreachable", "The connection ended in the middle of the answer.");
}

/** @param {AbortSignal} signal */
async function askNow(signal) {
  requireFrame();
  const asked = byId("question").value;
  const text = el("p", { class: "answer-text", "data-streaming": true });
  put(byId("answer"), text);
  const done = await stream(formOf(questionFields()), signal, (now) => (text.textContent = now)).catch((error) => {
    put(byId("answer"));
    throw error;
  });
  text.textContent = done.answer || "(the model gave an empty answer)";
  text.removeAttribute("data-streaming");
  showAnswer(text, asked, done);
  tell("answer");
}

/** @param {HTMLElement} text @param {string} asked @param {any} done */
function showAnswer(text, asked, done) {
  const { merge, timings_ms: timings, usage } = done;
  const truth = state.frame?.questions.find((one) => one.question === asked)?.answer;
  const is_right = truth !== undefined && truth.toLowerCase() === done.answer.trim().toLowerCase().replace(/\.$/, "");
  const facts = [
    merge.tokens_in === merge.tokens_out ? `${merge.tokens_in} visual tokens` : `${merge.tokens_in} → ${merge.tokens_out} visual tokens`,
    `${percent(merge.vit_flops_ratio)} of the encoder’s work`,
    `${usage.prompt_tokens} tokens read`,
    done.cached ? "frame was cached" : `batch of ${done.batch_size}`,
    done.model.id,
  ];
  put(
    byId("answer"),
    el("div", { class: "answer-row" }, text, truth !== undefined && el("span", { class: is_right ? "truth right" : "truth wrong" }, is_right ? "right" : `truth: ${truth}`)),
    el("div", { class: "confidence" }, el("span", {}, "Confidence"), meter(done.confidence ?? 0, percent(done.confidence ?? 0))),
    el("p", { class: "total" }, "Answered in ", el("strong", {}, milliseconds(timings.total)), `, ${milliseconds(timings.vision ?? 0)} of it in the encoder`),
    stageBar(timings),
    el("p", { class: "facts" }, facts.join(" · ")),
    done.finish_reason === "length" && el("p", { class: "note" }, "The answer was cut off: raise max_new_tokens in the advanced options."),
    depthUsed(done.depth),
  );
}

/** @param {any} depth */
function depthUsed(depth) {
  if (!depth) return null;
  /** @type {Record<string, string>} */
  const said = { client: "Your depth guided the merging.", estimate: `Depth was estimated by ${depth.estimator?.id}.`, none: "Merged by row and column, without depth.", unused: "The depth file was read, and this method does not use it." };
  return el("p", { class: "facts" }, said[depth.source] ?? "");
}

/** Offer the questions of a room. */
function suggest() {
  const box = byId("suggestions");
  const asked = state.frame?.questions ?? [];
  put(box, ...asked.slice(0, 4).map((one) => el("button", { type: "button", class: "chip", on: { click: () => choose(one.question) } }, one.question)));
  const known = asked.some((one) => one.question === byId("question").value);
  if (asked.length && !known && !byId("question").dataset.own) choose(asked[0].question);
}

/** @param {string} question */
function choose(question) {
  byId("question").value = question;
  delete byId("question").dataset.own;
  tell("settings");
}

export function startAsk() {
  const question = byId("question");
  question.addEventListener("input", () => {
    question.dataset.own = "yes";
    if (question.value === "") delete question.dataset.own;
  });
  const run = task({ start: byId("ask-button"), cancel: byId("cancel-ask"), place: byId("ask-progress"), saying: "Asking", work: askNow });
  question.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      run();
    }
  });
  on("frame", () => {
    suggest();
    put(byId("answer"));
  });
  showCode(byId("ask-code"), () => ({ path: "/vqa", fields: questionFields() }), "the question");
}
