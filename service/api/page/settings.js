/**
 * The settings of a request: method, share of tokens, views, and the advanced fields with their help.
 */
import { ask, estimates } from "./api.js";
import { byId, el, put } from "./dom.js";
import { state, tell } from "./state.js";

/** @type {any[]} */
export let methods = [];

/** Fields behind "Advanced", in the order they are shown; their help comes from the server. */
const ADVANCED = ["depth", "schedule", "alpha", "spatial_kernel", "r", "r_hw", "layers", "prop_attn", "order", "max_new_tokens", "temperature", "seed", "timeout_s", "cache"];
/** @type {Record<string, string[]>} */
const WORDS = {
  depth: ["", "estimate", "none"],
  prop_attn: ["", "true", "false"],
  cache: ["", "true", "false"],
  order: ["", "raster", "merge"],
  spatial_kernel: ["", "sinusoidal", "distance"],
  schedule: ["", "constant", "decreasing", "increasing"],
};
const SPATIAL = new Set(["alpha", "spatial_kernel"]);

/** @param {string} name */
export function methodOf(name) {
  return methods.find((method) => method.name === name);
}

/**
 * The fields of a request that differ from the defaults of the service.
 * @param {string} [method] another method than the chosen one, with the same share of tokens
 * @returns {Record<string, any>}
 */
export function mergeFields(method = byId("method").value) {
  const known = methodOf(method);
  /** @type {Record<string, any>} */
  const fields = { method };
  if (!known || known.name === "none") return fields;
  const mine = method === byId("method").value;
  const given = mine ? advanced() : {};
  if (!("r" in given) && !("r_hw" in given)) fields.keep_ratio = Number(byId("keep-ratio").value);
  for (const name of ["schedule", "alpha", "spatial_kernel", "r", "r_hw", "layers", "prop_attn", "order"]) {
    if (name in given && !(SPATIAL.has(name) && known.needs_depth === "never")) fields[name] = given[name];
  }
  const options = mine ? optionsGiven(known) : {};
  if (Object.keys(options).length) fields.options = options;
  return fields;
}

/** The fields that say how the picture is seen and read. @returns {Record<string, any>} */
export function viewFields() {
  const { depth, timeout_s } = advanced();
  const views = byId("views").value;
  return {
    ...(views && { views }),
    ...(state.preset && { depth_preset: state.preset }),
    ...(depth && { depth }),
    ...(timeout_s && { timeout_s }),
  };
}

/** The fields that say how the answer is written. @returns {Record<string, any>} */
export function answerFields() {
  const given = advanced();
  const names = ["max_new_tokens", "temperature", "seed", "cache"];
  return Object.fromEntries(names.filter((name) => name in given).map((name) => [name, given[name]]));
}

/** @returns {Record<string, any>} */
function advanced() {
  /** @type {Record<string, any>} */
  const found = {};
  for (const name of ADVANCED) {
    const input = document.getElementById(`field-${name}`);
    const text = /** @type {any} */ (input)?.value.trim();
    if (text) found[name] = typed(text);
  }
  return found;
}

/** @param {any} method */
function optionsGiven(method) {
  /** @type {Record<string, any>} */
  const found = {};
  for (const option of method.options) {
    const text = /** @type {any} */ (document.getElementById(`option-${option.name}`))?.value.trim();
    if (text) found[option.name] = typed(text);
  }
  return found;
}

/** @param {string} text @returns {any} numbers, lists and words as JSON has them */
function typed(text) {
  if (/^[-\d.,\s]+$/.test(text) && text.includes(",")) return text.split(",").map(Number);
  if (text === "true" || text === "false") return text === "true";
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

export async function loadMethods() {
  const listed = await ask("/methods");
  methods = listed.methods;
  for (const id of ["method", "method-b"]) {
    const select = byId(id);
    const kept = select.value;
    const first = id === "method-b" ? [el("option", { value: "" }, "nothing")] : [];
    put(select, ...first, ...methods.map((method) => el("option", { value: method.name }, method.name === "none" ? "none: no merging" : `${method.name}: ${method.title}`)));
    select.value = kept || (id === "method" ? "tosa" : "tome");
  }
  showMethod();
}

function showMethod() {
  const method = methodOf(byId("method").value);
  if (!method) return;
  /** @type {Record<string, string>} */
  const needs = { always: estimates ? "uses depth" : "needs depth", never: "uses no depth", "if asked": `uses depth with ${method.depth_option}` };
  const grid = method.keeps_grid && method.name !== "none" ? ", keeps a grid" : "";
  /** @type {Record<string, string>} */
  const layers = { all: "merges in all layers", first_half: "merges in the first half of the layers", one: `merges from layer ${method.first_layer} on` };
  put(byId("method-help"), `${method.title}: ${layers[method.layers] ?? "every patch is a token"}, ${needs[method.needs_depth]}${grid}.`, method.paper && ` arXiv ${method.paper}`);
  byId("ratio-row").hidden = method.name === "none";
  put(byId("method-options"), ...method.options.map(optionField));
}

/** @param {{name: string, type: string, default: any, description: string}} option */
function optionField(option) {
  return field(`option-${option.name}`, option.name, option.description, String(option.default ?? "none"));
}

/** @param {string} id @param {string} name @param {string} help @param {string} hint @param {string[]} [words] */
function field(id, name, help, hint, words) {
  const described = { id, "aria-describedby": `${id}-help`, autocomplete: "off" };
  const input = words
    ? el("select", described, ...words.map((word) => el("option", { value: word }, word || "default")))
    : el("input", { ...described, type: "text", placeholder: hint });
  return el("div", { class: "field" }, el("label", { for: id }, name), input, el("p", { class: "help", id: `${id}-help` }, help));
}

/** Make the advanced fields, once somebody wants them: their help is that of the API's own documentation. */
async function showAdvanced() {
  const place = byId("advanced-fields");
  if (place.children.length) return;
  const fields = ADVANCED.map((name) => field(`field-${name}`, name, "", "default", WORDS[name]));
  put(place, ...fields);
  const schema = (await ask("/openapi.json")).paths["/vqa"].post.requestBody.content["application/json"].schema;
  for (const name of ADVANCED) put(byId(`field-${name}-help`), schema.properties[name].description);
}

export function startSettings() {
  const [range, number] = [byId("keep-ratio"), byId("keep-ratio-shown")];
  const follow = () => put(number, `${Math.round(100 * range.value)} %`);
  range.addEventListener("input", follow);
  follow();
  byId("method").addEventListener("change", showMethod);
  byId("settings").addEventListener("change", () => tell("settings"));
  byId("advanced").addEventListener("toggle", () => showAdvanced().catch(() => undefined));
}
