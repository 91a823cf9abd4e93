/**
 * The playground. Starts the parts of the page; each has a file of its own.
 */
import { apiKey, needsKey, root, setApiKey } from "./api.js";
import { startAsk } from "./ask.js";
import { openCamera, pictureOf } from "./camera.js";
import { startCompare } from "./compare.js";
import { startDepth } from "./depth.js";
import { byId, put } from "./dom.js";
import { showFailure } from "./failures.js";
import { showFrame, startFrames } from "./frame.js";
import { startMerge } from "./merge.js";
import { loadMethods, startSettings } from "./settings.js";
import { startSpace } from "./space.js";

const PATIENCE_MS = 5000;

function startKey(/** @type {() => void} */ entered) {
  if (!needsKey) return;
  const [box, input] = [byId("key-box"), byId("key")];
  box.hidden = false;
  input.value = apiKey();
  box.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    setApiKey(input.value);
    put(byId("key-said"), input.value ? "The key is kept in this tab only." : "No key.");
    entered();
  });
}

/** Say whether the server is ready; ask again sooner while it is not, and at once when a request got lost. */
function watchServer(/** @type {() => void} */ back) {
  const chip = byId("status");
  let was = "";
  let timer = 0;
  const state = async () => {
    try {
      return (await fetch(`${root}/readyz`, { signal: AbortSignal.timeout(PATIENCE_MS) })).ok ? "ready" : "not ready";
    } catch {
      return "no connection";
    }
  };
  const look = async () => {
    clearTimeout(timer);
    timer = setTimeout(look, was === "ready" ? 3 * PATIENCE_MS : PATIENCE_MS / 3);
    if (document.visibilityState !== "visible") return;
    const now = await state();
    if (now === was) return;
    put(chip, now);
    chip.dataset.state = now;
    if (now === "ready" && was) back();
    was = now;
  };
  document.addEventListener("unreachable", look);
  document.addEventListener("visibilitychange", look);
  look();
}

function startWebcam() {
  const [button, video, take] = [byId("webcam"), byId("video"), byId("take")];
  /** @type {(() => void) | null} */
  let close = null;
  const shut = () => {
    close?.();
    close = null;
    byId("webcam-box").hidden = true;
    button.setAttribute("aria-expanded", "false");
  };
  const open = async () => {
    if (close) return shut();
    put(byId("frame-problem"));
    try {
      byId("webcam-box").hidden = false;
      close = await openCamera(video);
      button.setAttribute("aria-expanded", "true");
      take.focus();
    } catch (error) {
      shut();
      showFailure(byId("frame-problem"), error, open);
    }
  };
  button.addEventListener("click", open);
  take.addEventListener("click", async () => {
    await showFrame({ name: "webcam", image: await pictureOf(video), imageName: "frame.jpg" });
    shut();
    button.focus();
  });
}

/** Live has a file of its own, loaded when somebody opens it. */
function startLiveCard() {
  const card = byId("live");
  card.addEventListener("toggle", async () => {
    if (!card.open || card.dataset.started) return;
    card.dataset.started = "yes";
    try {
      (await import("./live.js")).startLive();
    } catch (error) {
      delete card.dataset.started;
      showFailure(byId("live-problem"), error);
    }
  });
}

startSettings();
startDepth();
startAsk();
startMerge();
startCompare();
startSpace();
startWebcam();
startLiveCard();
const firstRoom = startFrames();
const begin = () => {
  loadMethods().catch((error) => showFailure(byId("ask-progress"), error, begin));
  if (!needsKey || apiKey()) firstRoom();
};
startKey(begin);
watchServer(() => {
  if (byId("method").options.length === 0) loadMethods().catch(() => undefined);
  if (byId("drop-hint").hidden === false && (!needsKey || apiKey())) firstRoom();
});
begin();
