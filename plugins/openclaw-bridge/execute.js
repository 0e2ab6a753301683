// A call's way: seen before? journal, perform, mask, journal, answer.

import { digestOf } from "./journal.js";
import { CALL_ID_CHARS_MAX, CALLS_IN_FLIGHT_MAX, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX } from "./limits.js";
import { formsOf, maskBytes, maskText } from "./mask.js";
import { NotSent, OutcomeUnknown, perform } from "./perform.js";

/** A refusal that the control plane branches on by `detailsCode`. */
export class Refusal extends Error {
  constructor(detailsCode, message, { code = "INVALID_REQUEST", retryable = false, details = {} } = {}) {
    super(message);
    this.shape = { code, message, retryable, details: { code: detailsCode, ...details } };
  }
}

export class Executor {
  constructor(journal, performRequest = perform) {
    this.journal = journal;
    this.perform = performRequest;
    /** callId -> { digest, answer: Promise } of calls under way in this process. */
    this.inFlight = new Map();
  }

  async execute(params) {
    const call = check(params);
    const running = this.inFlight.get(call.callId);
    if (running) {
      if (running.digest !== call.digest) throw reused(call);
      return { ...(await running.answer), replayed: true };
    }
    const seen = this.journal.get(call.callId);
    if (seen && seen.digest !== call.digest) throw reused(call);
    if (seen?.state === "finished") return this.#replay(call);
    if (!call.retryUnknown) this.#refuseUnknown(call, seen);
    if (this.inFlight.size >= CALLS_IN_FLIGHT_MAX) {
      throw new Refusal("BUSY", `${CALLS_IN_FLIGHT_MAX} calls are under way`, { code: "UNAVAILABLE", retryable: true });
    }
    const answer = this.#perform(call);
    this.inFlight.set(call.callId, { digest: call.digest, answer });
    try {
      return { ...(await answer), replayed: false };
    } finally {
      this.inFlight.delete(call.callId);
    }
  }

  #replay(call) {
    const reply = this.journal.replyOf(call.callId);
    if (!reply) {
      throw new Refusal("REPLY_NOT_KEPT", "the call was carried out, and its reply was too large to keep", { code: "UNAVAILABLE" });
    }
    return this.#answer(call, reply, true, 0);
  }

  #refuseUnknown(call, seen) {
    const details = { startedAt: seen?.at ?? null };
    if (seen?.state === "started" || seen?.state === "unknown") {
      const why = seen.reason ?? "the gateway ended before the reply was noted";
      throw new Refusal("OUTCOME_UNKNOWN", why, { code: "UNAVAILABLE", details });
    }
    if (!seen && call.resend && call.journalId !== this.journal.id) {
      throw new Refusal("OUTCOME_UNKNOWN", "the instance's journal is another one than the call was first sent to", { code: "UNAVAILABLE", details });
    }
  }

  async #perform(call) {
    const began = performance.now();
    const forms = formsOf(call.secrets);
    await this.journal.started(call.callId, call.digest);
    let raw;
    try {
      raw = await this.perform(call.request, call);
    } catch (error) {
      await this.#noteFailure(call, error, forms);
    }
    const body = maskBytes(raw.body, forms);
    const reply = {
      status: raw.status,
      headers: raw.headers.map(([name, value]) => [name, maskText(value, forms)]),
      bodyBase64: body.toString("base64"),
      truncated: raw.truncated,
    };
    await this.journal.finished(call.callId, call.digest, reply);
    return this.#answer(call, reply, false, performance.now() - began);
  }

  async #noteFailure(call, error, forms) {
    const message = maskText(String(error.message), forms);
    if (error instanceof NotSent) {
      await this.journal.notSent(call.callId, call.digest);
      throw new Refusal("NOT_SENT", message, { code: "UNAVAILABLE", retryable: true });
    }
    await this.journal.unknown(call.callId, call.digest, message);
    if (error instanceof OutcomeUnknown) throw new Refusal("OUTCOME_UNKNOWN", message, { code: "UNAVAILABLE", details: { startedAt: Date.now() } });
    throw new Refusal("OUTCOME_UNKNOWN", "the bridge failed while the call was under way", { code: "UNAVAILABLE" });
  }

  #answer(call, reply, replayed, durationMs) {
    return {
      callId: call.callId,
      journalId: this.journal.id,
      replayed,
      reply: { ...reply, digest: digestOf(JSON.stringify(reply)) },
      durationMs: Math.round(durationMs),
    };
  }
}

const reused = (call) => new Refusal("CALL_ID_REUSED", `the call id ${call.callId} came before with another request`);

function check(params) {
  const wrong = (what) => new Refusal("INVALID_CALL", what);
  const { callId, digest, request } = params ?? {};
  if (typeof callId !== "string" || callId.length === 0 || callId.length > CALL_ID_CHARS_MAX) throw wrong("callId must be a text");
  if (typeof digest !== "string" || !/^[0-9a-f]{64}$/.test(digest)) throw wrong("digest must be a SHA-256 in hexadecimal");
  if (typeof request?.url !== "string" || !/^(GET|HEAD|POST|PUT|PATCH|DELETE)$/.test(request.method)) throw wrong("request must have a method and a URL");
  for (const header of request.headers ?? []) {
    if (!Array.isArray(header) || header.some((part) => typeof part !== "string" || /[\r\n\0]/.test(part))) throw wrong("a header is malformed");
  }
  const body = request.bodyBase64 ? Buffer.from(request.bodyBase64, "base64") : null;
  if (body && body.length > REQUEST_BYTES_MAX) throw wrong(`the body has more than ${REQUEST_BYTES_MAX} bytes`);
  return {
    callId,
    digest,
    resend: params.resend === true,
    retryUnknown: params.retryUnknown === true,
    journalId: params.journalId ?? null,
    secrets: Array.isArray(params.secrets) ? params.secrets : [],
    timeoutMs: Math.min(params.timeoutMs ?? TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX),
    maxResponseBytes: Math.min(params.maxResponseBytes ?? RESPONSE_BYTES_MAX, RESPONSE_BYTES_MAX),
    privateNetwork: params.privateNetwork === "allow" ? "allow" : "refuse",
    request: { method: request.method, url: request.url, headers: request.headers ?? [], body },
  };
}
