/**
 * Long work: one at a time for each button, with progress that says how long, and a way to cancel.
 */
import { el, put } from "./dom.js";
import { showFailure } from "./failures.js";

/**
 * Let a button start work and another one cancel it; while it runs, `place` shows how long it takes.
 * @param {object} parts
 * @param {any} parts.start
 * @param {any} parts.cancel
 * @param {Element} parts.place
 * @param {string} parts.saying what the work is, such as "Asking"
 * @param {(signal: AbortSignal, say: (text: string) => void) => Promise<void>} parts.work it may say how far it is
 * @returns {() => Promise<void>}
 */
export function task({ start, cancel, place, saying, work }) {
  /** @type {AbortController | null} */
  let running = null;
  const run = async () => {
    if (running) return;
    const mine = (running = new AbortController());
    start.setAttribute("aria-disabled", "true");
    cancel.hidden = false;
    const progress = showProgress(place, saying);
    try {
      await work(mine.signal, progress.say);
      progress.end();
    } catch (error) {
      progress.end();
      showFailure(place, error, run);
    } finally {
      running = null;
      start.removeAttribute("aria-disabled");
      if (document.activeElement === cancel) start.focus();
      cancel.hidden = true;
    }
  };
  start.addEventListener("click", run);
  cancel.addEventListener("click", () => running?.abort());
  return run;
}

/** @param {Element} place @param {string} saying */
function showProgress(place, saying) {
  const began = performance.now();
  const clock = el("span", { class: "clock", "aria-hidden": "true" });
  const far = el("span", {});
  const shown = el("div", { class: "progress" }, el("span", { class: "sweep" }), el("span", {}, saying, " …"), far, clock);
  const tick = () => (clock.textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`);
  const timer = setInterval(tick, 100);
  put(place, shown);
  return {
    /** @param {string} text */
    say: (text) => put(far, text),
    end() {
      clearInterval(timer);
      shown.remove();
    },
  };
}
