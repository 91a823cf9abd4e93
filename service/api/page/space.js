/**
 * The 3D card: loads the drawing when it is wanted, and gives it what the merge view knows.
 */
import { Failure } from "./api.js";
import { byId, put } from "./dom.js";
import { showFailure } from "./failures.js";
import { shown } from "./merge.js";
import { on } from "./state.js";

/** @type {any} */
let drawn = null;

async function show() {
  const place = byId("space-problem");
  put(place);
  try {
    if (!shown.a) throw new Failure("no_overlay", "Show the groups first: the cloud takes its depth from there.");
    if (!shown.a.values) throw new Failure("no_depth", "No depth is known for this frame: open a depth file, or choose a method that estimates it.");
    // The address does not change while the server is the same; after an update the page must be loaded again.
    const { showPoints } = await import("./points.js").catch(() => {
      throw new Failure("unreachable", "The 3D part could not be loaded. If the server was updated, reload the page.");
    });
    const canvas = fresh();
    byId("space-stage").hidden = false;
    drawn?.end();
    drawn = showPoints(canvas, {
      bitmap: shown.frame.bitmap,
      map: shown.a.values,
      kind: kindOf(),
      view: shown.a.views[0],
      layer: shown.layer,
      camera: shown.frame.camera,
      fieldOfView: Number(byId("field-of-view").value),
    });
    byId("lens-row").hidden = Boolean(shown.frame.camera);
    put(byId("space-facts"), `${drawn.count.toLocaleString("en")} points, coloured by ${colour()}`);
    drawn.paint(colour(), shown.layer);
  } catch (error) {
    showFailure(place, error, show);
  }
}

/** @returns {"picture" | "depth" | "group"} */
function colour() {
  return byId("space-colour").value;
}

/** @returns {string} */
function kindOf() {
  const { depth } = shown.a;
  return depth?.kind ?? "metric";
}

/** A canvas without a context: a lost one cannot be used again. */
function fresh() {
  const old = byId("space");
  const next = old.cloneNode(false);
  old.replaceWith(next);
  return next;
}

export function startSpace() {
  byId("show-space").addEventListener("click", show);
  byId("field-of-view").addEventListener("change", () => drawn && show());
  byId("space-colour").addEventListener("change", () => {
    drawn?.paint(colour(), shown.layer);
    if (drawn) put(byId("space-facts"), `${drawn.count.toLocaleString("en")} points, coloured by ${colour()}`);
  });
  byId("layer").addEventListener("change", () => drawn && colour() === "group" && drawn.paint("group", shown.layer));
  on("frame", () => {
    drawn?.end();
    drawn = null;
    byId("space-stage").hidden = true;
    put(byId("space-problem"));
  });
}
