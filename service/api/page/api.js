/**
 * Talk to the service that served this page, and to nobody else.
 */

const facts = document.documentElement.dataset;
export const root = facts.root ?? "";
export const needsKey = facts.needsKey === "yes";
export const estimates = facts.estimates === "yes";
export const mostCompared = Number(facts.mostCompared);
export const presets = (facts.presets ?? "").split(",");
const KEY = "tosa-vqa key";

/** A request that failed: what happened, of which field, and what the server said about it. */
export class Failure extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{field?: string, choices?: string[], limit?: number, request_id?: string, retryS?: number}} [more]
   */
  constructor(code, message, more = {}) {
    super(message);
    this.code = code;
    this.more = more;
  }
}

/** @returns {string} the API key of this tab, or nothing */
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} key */
export function setApiKey(key) {
  try {
    sessionStorage.setItem(KEY, key.trim());
  } catch {
    // a browser that keeps nothing asks again after a reload
  }
}

/**
 * Send a request and return the response if it is a good one.
 * @param {string} path
 * @param {{json?: unknown, form?: FormData, signal?: AbortSignal, verb?: string}} [options]
 * @returns {Promise<Response>}
 */
export async function send(path, { json, form, signal, verb } = {}) {
  /** @type {Record<string, string>} */
  const headers = {};
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (apiKey()) headers["X-API-Key"] = apiKey();
  const body = json === undefined ? form : JSON.stringify(json);
  let response;
  try {
    response = await fetch(root + path, { method: verb ?? (body === undefined ? "GET" : "POST"), headers, body, signal, keepalive: verb === "DELETE" });
  } catch (error) {
    throw reached(error);
  }
  if (response.ok) return response;
  throw await refusal(response);
}

/**
 * Send a request and read its JSON.
 * @param {string} path
 * @param {{json?: unknown, form?: FormData, signal?: AbortSignal, verb?: string}} [options]
 * @returns {Promise<any>}
 */
export async function ask(path, options = {}) {
  const response = await send(path, options);
  try {
    return await response.json();
  } catch (error) {
    throw reached(error);
  }
}

/**
 * Yield the server-sent events of a response.
 * @param {Response} response
 * @returns {AsyncGenerator<{name: string, data: any}>}
 */
export async function* events(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const blocks = rest.split("\n\n");
      rest = blocks.pop() ?? "";
      for (const block of blocks) yield parsed(block);
    }
  } catch (error) {
    throw reached(error);
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** @param {string} block @returns {{name: string, data: any}} */
function parsed(block) {
  const lines = block.split("\n").map((line) => line.match(/^(\w+): ?(.*)$/) ?? ["", "", ""]);
  const of = (/** @type {string} */ name) => lines.filter((line) => line[1] === name).map((line) => line[2]);
  return { name: of("event")[0] ?? "message", data: JSON.parse(of("data").join("\n")) };
}

/**
 * Make a Failure of the body of an error.
 * @param {any} error
 * @param {number} [retryS]
 */
export function failureOf(error, retryS) {
  const { code = "unknown", message = "The server answered with an error.", ...more } = error ?? {};
  return new Failure(code, message, { ...more, retryS });
}

/** @param {Response} response */
async function refusal(response) {
  const retryS = Number(response.headers.get("Retry-After")) || undefined;
  const body = await response.json().catch(() => null);
  if (body?.error) return failureOf(body.error, retryS);
  return new Failure("unexpected", `The server answered with status ${response.status}, and not as this service does.`);
}

/** @param {unknown} error */
function reached(error) {
  if (error instanceof Failure) return error;
  if (error instanceof DOMException && error.name === "AbortError") return new Failure("cancelled", "Cancelled.");
  document.dispatchEvent(new Event("unreachable"));
  return new Failure("unreachable", "The server does not answer. It may be restarting, or the network is down.");
}
