/**
 * Show failures as a person wants them: what happened, why, and what to do. What was entered stays.
 */
import { byId, el, put } from "./dom.js";
import { Failure } from "./api.js";

/** @type {Record<string, string>} */
const ADVICE = {
  unreachable: "Nothing is lost: your frame, question and settings are kept. Try again in a moment.",
  unauthorized: "Enter an API key of this server; its operator has them.",
  budget_exceeded: "The budget of your key fills up again by itself within a minute.",
  overloaded: "The server has too much to do at the moment.",
  draining: "The server is shutting down. If it restarts, this page goes on working.",
  not_ready: "The model is loading, which can take a minute after a start.",
  deadline_exceeded: "Keep fewer tokens, or shorten the answer in the advanced options.",
  depth_required: "Open a depth file, choose depth “none” in the advanced options, or choose another method.",
  body_too_large: "Make the picture or the depth file smaller.",
  episode_not_found: "The server was restarted, or nobody used it for too long: choose the folder again.",
  internal: "This is a fault of the server. Its operator finds it by the request id.",
  camera: "Allow the camera for this page in your browser, and close other programs that use it.",
};

/**
 * Show a failure in a place of the page, with a button to do the same again.
 * @param {Element} place
 * @param {unknown} error
 * @param {() => void} [again]
 */
export function showFailure(place, error, again) {
  const failure = error instanceof Failure ? error : new Failure("page", String(error));
  if (failure.code === "cancelled") {
    put(place, el("p", { class: "note" }, "Cancelled. Nothing goes on for it."));
    return;
  }
  if (!(error instanceof Failure)) console.error(error);
  const { field, choices, limit, request_id: id, retryS } = failure.more;
  const advice = ADVICE[failure.code];
  /** @type {any[]} */
  const facts = [
    field && ["field", field],
    limit !== undefined && ["limit", String(limit)],
    retryS && ["try again in", `${retryS} s`],
    ["code", failure.code],
    id && ["request", id],
  ].filter(Boolean);
  put(
    place,
    el(
      "div",
      { class: "failure", role: "alert" },
      el("p", { class: "what" }, failure.message),
      advice && el("p", {}, advice),
      choices && choices.length < 40 && el("p", {}, "Possible: ", choices.join(", ")),
      el("p", { class: "facts" }, facts.map(([name, value]) => `${name} ${value}`).join(" · ")),
      again && el("button", { type: "button", on: { click: again } }, "Try again"),
    ),
  );
  if (failure.code === "unauthorized") {
    byId("key-box").hidden = false;
    byId("key").focus();
  }
}
