// Asking the service: the one place that fetches. A refusal says what is wrong and what to do; a stream of events is
// read here as well, since an EventSource cannot send an API key.

import { keptForNow } from "./kept.js";

const ANSWER_WITHIN_MS = 30_000;
const SILENCE_MS_MAX = 40_000; // of a stream of events; the service says something each 15 s
const RETRY_AFTER_S = 2;
const EVENT_CHARS_MAX = 64 * 2 ** 20;

/** The service answered that it will not. `retryAfter` in seconds: it may later; null: never as it is. */
export class Refusal extends Error {
  constructor(status, { message, code, param, what_to_do: next } = {}, retryAfter = null) {
    super(message ?? `HTTP ${status}`);
    Object.assign(this, { status, code: code ?? "", param: param ?? null, next: next ?? "", retryAfter });
  }
}

/** Nobody answered. */
export class Unreachable extends Error {}

let key = keptForNow.get("key") ?? "";

export const apiKey = {
  get: () => key,
  set(value) {
    key = value;
    keptForNow.set("key", value || null);
  },
};

/** The answer's JSON, or its blob where `as` is "blob". Throws Refusal, Unreachable, and AbortError by `signal`. */
export async function call(method, path, { body, idempotencyKey, as = "json", signal } = {}) {
  const limit = AbortSignal.timeout(ANSWER_WITHIN_MS);
  const response = await ask(method, path, { body, idempotencyKey, signal: signal ? AbortSignal.any([signal, limit]) : limit }, signal);
  try {
    return await (as === "blob" ? response.blob() : response.json());
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable(String(error));
  }
}

/** The events of a job after the one with the id `last`: {id, name, data}. Ends when the service ends the stream. */
export async function* events(path, { last, signal }) {
  const silence = new AbortController();
  const ended = AbortSignal.any([signal, silence.signal]);
  let timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
  try {
    const response = await ask("GET", path, { last, signal: ended }, signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      if (text.length > EVENT_CHARS_MAX) throw new Error("an event without an end");
      for (const block of blocks) {
        const event = parsed(block);
        if (event) yield event;
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof Refusal) throw error;
    throw new Unreachable(String(error));
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

async function ask(method, path, options, asked) {
  const { body, idempotencyKey, last, signal } = options;
  const sent = key;
  const headers = {};
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers["Content-Type"] = "application/json";
  if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
  if (last) headers["Last-Event-ID"] = last;
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined || form ? body : JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    if (asked?.aborted) throw error;
    throw new Unreachable(String(error));
  }
  if (response.ok) return response;
  if (response.status === 401 && sent !== key) return ask(method, path, options, asked); // another was given meanwhile
  throw new Refusal(response.status, await errorOf(response), retryAfterOf(response));
}

async function errorOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return { message: `${response.status} ${response.statusText}` }; // of a proxy in between
  }
}

function retryAfterOf(response) {
  if (response.headers.get("x-should-retry") === "false") return null;
  if (![408, 429, 502, 503, 504].includes(response.status)) return null;
  return Number(response.headers.get("retry-after")) || RETRY_AFTER_S;
}

function parsed(block) {
  const event = { id: "", name: "", data: null };
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("event: ")) event.name = line.slice(7);
    else if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
  }
  return event.data === null ? null : event;
}
