/**
 * The code of a request: curl, Python, and OpenAI's client. What is shown does what the page did.
 */
import { mostCompared, needsKey, root } from "./api.js";
import { byId, el, put } from "./dom.js";
import { on, state } from "./state.js";

/** @typedef {{path: string, fields: Record<string, any>}} Request */

const MERGE = ["method", "keep_ratio", "r", "r_hw", "layers", "schedule", "alpha", "spatial_kernel", "options", "prop_attn", "order"];

/** @param {string} text a word for a POSIX shell */
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {any} value @param {string} [indent] @returns {string} a literal of Python */
export function python(value, indent = "") {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map((one) => python(one, indent)).join(", ")}]`;
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([name, one]) => `${indent}    ${JSON.stringify(name)}: ${python(one, `${indent}    `)},`);
    return pairs.length ? `{\n${pairs.join("\n")}\n${indent}}` : "{}";
  }
  return JSON.stringify(value);
}

const origin = () => location.origin + root;
const text = (/** @type {any} */ value) => (typeof value === "string" ? value : JSON.stringify(value));
const safeName = (/** @type {string | null | undefined} */ name, /** @type {string} */ otherwise) => name?.replace(/[^\w.-]/g, "_").replace(/^-/, "_") || otherwise;

/** The names that the files have once they are saved. */
export function fileNames() {
  const frame = state.frame;
  return { image: safeName(frame?.imageName, "frame.png"), depth: frame?.depth ? safeName(frame.depthName, "depth.png") : null };
}

/** The specs of a comparison, as many in one request as the server takes. @param {Record<string, any>} fields @returns {any[][]} */
function inRequests({ specs }) {
  const count = Math.ceil(specs.length / mostCompared);
  return Array.from({ length: count }, (_, at) => specs.slice(at * mostCompared, (at + 1) * mostCompared));
}

/** @param {Request} request @returns {string} */
function curl({ path, fields }) {
  if (fields.specs?.length > mostCompared) return inRequests(fields).map((specs) => curl({ path, fields: { ...fields, specs } })).join("\n\n");
  const { image, depth } = fileNames();
  const parts = [`image=@${image}`, ...(depth ? [`depth=@${depth}`] : [])].map((part) => `-F ${quoted(part)}`);
  // --form-string: a value that begins with @ or < is a text, not the name of a file.
  for (const [name, value] of Object.entries(fields)) parts.push(`--form-string ${quoted(`${name}=${text(value)}`)}`);
  if (needsKey) parts.unshift(`-H "X-API-Key: $TOSA_VQA_KEY"`);
  return [`curl -sS ${quoted(origin() + path)}`, ...parts.map((part) => `  ${part}`)].join(" \\\n");
}

/** @param {Request} request */
function requests({ path, fields }) {
  const { image, depth } = fileNames();
  const { specs, ...shared } = fields;
  const plain = Object.fromEntries(Object.entries(shared).map(([name, value]) => [name, text(value)]));
  const files = [`    ("image", open(${python(image)}, "rb").read()),`, ...(depth ? [`    ("depth", open(${python(depth)}, "rb").read()),`] : [])];
  const key = needsKey ? [`headers = {"X-API-Key": os.environ["TOSA_VQA_KEY"]}`] : [];
  const last = path === "/vqa" ? `print(response.json()["answer"])` : `print(response.json())`;
  const post = (/** @type {string} */ data) => `httpx.post(${python(origin() + path)}, data=${data}, files=files, timeout=${specs ? 300 : 60}${needsKey ? ", headers=headers" : ""})`;
  return [
    ...(specs ? ["import json"] : []),
    ...(needsKey ? ["import os"] : []),
    ...(specs || needsKey ? [""] : []),
    "import httpx",
    "",
    `fields = ${python(plain)}`,
    "files = [",
    ...files,
    "]",
    ...key,
    ...(specs ? comparing(inRequests(fields), post(`{**fields, "specs": json.dumps(specs)}`)) : [`response = ${post("fields")}`, "assert response.status_code == 200, response.text", last]),
    "",
  ].join("\n");
}

/** @param {any[][]} parts the specs of each request @param {string} post */
function comparing(parts, post) {
  return [
    "for specs in [",
    ...parts.map((specs) => `    [\n${specs.map((spec) => `        ${python(spec, "        ")},`).join("\n")}\n    ],`),
    "]:",
    `    response = ${post}`,
    "    assert response.status_code == 200, response.text",
    `    for result in response.json()["results"]:`,
    `        print(result["spec"]["method"], result["answer"] if "answer" in result else result["error"]["message"])`,
  ];
}

/** @param {Request} request */
function openai({ fields }) {
  const { image, depth } = fileNames();
  const { specs } = fields;
  const merge = Object.fromEntries(Object.entries(fields).filter(([name]) => MERGE.includes(name)));
  const source = Object.fromEntries(Object.entries(fields).filter(([name]) => name.startsWith("depth")).map(([name, value]) => [name === "depth" ? "source" : name.slice(6), value]));
  const rest = Object.fromEntries(["views", "timeout_s", "cache"].filter((name) => name in fields).map((name) => [name, fields[name]]));
  const shared = { ...(Object.keys(source).length && { depth: source }), ...rest };
  const extra = specs ? `{**extra, "merge": spec}` : python({ merge, ...shared }, "    ");
  const indent = specs ? "    " : "";
  const own = ["temperature", "seed"].filter((name) => name in fields).map((name) => `    ${name}=${python(fields[name])},`);
  return [
    "import base64",
    ...(needsKey ? ["import os"] : []),
    "",
    "from openai import OpenAI",
    "",
    "",
    "def data_uri(path):",
    `    return "data:application/octet-stream;base64," + base64.b64encode(open(path, "rb").read()).decode()`,
    "",
    "",
    `client = OpenAI(base_url=${python(`${origin()}/v1`)}, api_key=${needsKey ? `os.environ["TOSA_VQA_KEY"]` : `"none"`})`,
    "content = [",
    `    {"type": "image_url", "image_url": {"url": data_uri(${python(image)})}},`,
    ...(depth ? [`    {"type": "depth_url", "depth_url": {"url": data_uri(${python(depth)})}},`] : []),
    `    {"type": "text", "text": ${python(fields.question)}},`,
    "]",
    ...(specs ? [`extra = ${python(shared)}`, "specs = [", ...specs.map((/** @type {any} */ spec) => `    ${python(spec, "    ")},`), "]", "for spec in specs:"] : []),
    ...[
      "answer = client.chat.completions.create(",
      "    model=client.models.list().data[0].id,",
      `    messages=[{"role": "user", "content": content}],`,
      `    max_completion_tokens=${fields.max_new_tokens ?? 32},`,
      ...own,
      `    extra_body=${extra},`,
      ")",
      `print(${specs ? `spec["method"], ` : ""}answer.choices[0].message.content)`,
    ].map((line) => indent + line),
    "",
  ].join("\n");
}

/** Ways to write a request, by the name of their tab. @type {Record<string, (request: Request) => string>} */
const WRITERS = { curl, Python: requests, "OpenAI client": openai };

/**
 * Show the code of the request that a part of the page would send, in a box that opens.
 * @param {HTMLElement} place a <details>
 * @param {() => Request} request
 * @param {string} about what the request is, for screen readers
 * @param {string[]} [ways]
 */
export function showCode(place, request, about, ways = Object.keys(WRITERS)) {
  let way = ways[0];
  const code = el("code", {});
  const shown = el("pre", { tabindex: 0, role: "region", "aria-label": `Code of ${about}` }, code);
  const draw = () => {
    if (!place.hasAttribute("open")) return;
    code.textContent = WRITERS[way](request());
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.way === way));
  };
  const pick = (/** @type {string} */ name) => {
    way = name;
    draw();
  };
  const buttons = ways.map((name) => el("button", { type: "button", class: "chip", data: { way: name }, on: { click: () => pick(name) } }, name));
  const said = el("span", { class: "note", role: "status" });
  const copy = el("button", { type: "button", on: { click: () => copied(code.textContent, said) } }, "Copy");
  const save = el("button", { type: "button", on: { click: saveFiles } }, "Save the frame’s files");
  const key = needsKey && el("p", { class: "note" }, "Set TOSA_VQA_KEY to your API key before; the page puts no key into code.");
  place.append(el("div", { class: "row" }, ...buttons, copy, save, said), key || "", shown);
  place.addEventListener("toggle", draw);
  on("settings", draw);
  on("frame", draw);
  byId("question").addEventListener("input", draw);
}

/** @param {string} value @param {Element} said */
export async function copied(value, said) {
  try {
    await navigator.clipboard.writeText(value);
  } catch {
    const area = el("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = value;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  put(said, "Copied.");
  setTimeout(() => put(said), 2500);
}

function saveFiles() {
  const frame = state.frame;
  if (!frame) return;
  const { image, depth } = fileNames();
  for (const [blob, name] of /** @type {[Blob, string][]} */ ([[frame.image, image], ...(frame.depth ? [[frame.depth, depth]] : [])])) {
    const url = URL.createObjectURL(blob);
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
}

