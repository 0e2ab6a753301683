// The meaning of a call id: whatever dies, and however often a call is sent, it acts once or says that
// nobody can know.
import { createHash } from "node:crypto";
import { Failure, notSent, outcomeUnknown } from "./failure.js";
import { readCall, readRecall } from "./contract.js";
import { FINISHED, NOT_SENT, WITHDRAWN } from "./journal.js";
import * as limits from "./limits.js";
import { createMasker, REDACTED } from "./mask.js";

export class Bridge {
  #journal;
  #perform;
  #running = new Map(); // callId -> { digest, answer: Promise }
  #identity;

  /** `perform` carries out one exchange (see perform.js); `identity` is `{bridgeVersion, bootId}`. */
  constructor({ journal, perform, identity }) {
    this.#journal = journal;
    this.#perform = perform;
    this.#identity = identity;
  }

  status() {
    return {
      ...this.#identity,
      journalId: this.#journal.id,
      inFlight: this.#running.size,
      journalEntries: this.#journal.entryCount,
    };
  }

  /** The answer of this call, or a `Failure`. No awaiting between the checks and the entry into `#running`:
   *  two calls of one id must not both get past them. */
  async execute(params) {
    const call = readCall(params);
    const running = this.#running.get(call.callId);
    if (running) return this.#attach(call, running);
    const known = this.#journal.find(call.callId);
    if (known) requireSameDigest(call, known.digest);
    if (known?.state === FINISHED) return this.#replay(call);
    this.#requireKnownPast(call, known);
    if (this.#running.size >= limits.MAX_CONCURRENT_CALLS) throw busy();
    return this.#begin(call);
  }

  /** What became of a call: the answer of the one that was sent, or a `Failure`. A call that was not begun never will
   *  be: `NOT_SENT` is the last word on its id, also for a sending of it that is still on its way. */
  async recall(params) {
    const call = readRecall(params);
    const running = this.#running.get(call.callId);
    if (running) return this.#attach(call, running);
    const known = this.#journal.find(call.callId);
    if (known) requireSameDigest(call, known.digest);
    if (known?.state === FINISHED) return this.#replay(call);
    this.#requireKnownPast({ ...call, resend: true }, known);
    return this.#withdraw(call);
  }

  /** Under way while it is noted, so that a sending that comes meanwhile waits for it. */
  #withdraw({ callId, digest }) {
    const noted = this.#journal.withdrawn(callId, digest).then(withdrawn, cannotWithdraw);
    const answer = noted.finally(() => this.#running.delete(callId));
    this.#running.set(callId, { digest, answer });
    return answer;
  }

  async #attach(call, { digest, answer }) {
    requireSameDigest(call, digest);
    return { ...(await answer), replayed: true };
  }

  async #replay({ callId }) {
    const reply = await this.#journal.reply(callId).catch(() => {
      throw new Failure("UNAVAILABLE", "The call was carried out, but its reply cannot be read from this instance's disk. Check the disk, then send the call again.");
    });
    return { callId, journalId: this.#journal.id, replayed: true, reply, durationMs: 0 };
  }

  /** Refuses to perform what may have been performed already. */
  #requireKnownPast(call, known) {
    if (known?.state === WITHDRAWN) withdrawn();
    if (call.retryUnknown || known?.state === NOT_SENT) return;
    if (known) {
      throw outcomeUnknown(known.reason ?? "PROCESS_DIED", "An earlier attempt of this call was begun and its outcome is not known. Look at the service, then resolve the call as done or try again.", { startedAt: known.startedAt });
    }
    if (!call.resend) return;
    if (call.journalId !== null && call.journalId !== this.#journal.id) {
      throw outcomeUnknown("JOURNAL_LOST", "This instance's record of earlier calls was lost, so it cannot know whether this one was carried out. Look at the service, then resolve the call as done or try again.");
    }
    if (this.#journal.mayHaveForgotten(call.sentAgoMs)) {
      throw outcomeUnknown("FORGOTTEN", "This instance had to forget older calls, perhaps this one. Look at the service, then resolve the call as done or try again.");
    }
  }

  #begin(call) {
    const answer = this.#carryOut(call).finally(() => this.#running.delete(call.callId));
    this.#running.set(call.callId, { digest: call.digest, answer });
    return answer;
  }

  async #carryOut(call) {
    const begunAt = performance.now();
    const masker = createMasker(call.secrets);
    await this.#journal.started(call.callId, call.digest).catch(journalUnavailable);
    const raw = await this.#perform(call).catch((error) => this.#noteFailure(call, masker, error));
    const reply = maskedReply(masker, raw);
    await this.#noteReply(call, reply);
    return {
      callId: call.callId,
      journalId: this.#journal.id,
      replayed: false,
      reply,
      durationMs: Math.round(performance.now() - begunAt),
    };
  }

  async #noteFailure({ callId }, masker, error) {
    const failure = error instanceof Failure ? error : outcomeUnknown("BRIDGE_FAULT", `The bridge failed over this call (${error?.name ?? "unknown error"}). Look at the service before trying again.`);
    failure.message = masker.text(failure.message);
    const note = failure.code === "NOT_SENT" ? this.#journal.notSent(callId) : this.#journal.unknown(callId, failure.details.reason);
    // Without this note the call counts as begun without an outcome, which is the safe side.
    await note.catch(() => {});
    throw failure;
  }

  /** A reply that cannot be journaled is still the truth: `started` is on the disk, so nothing acts twice. */
  async #noteReply({ callId, journalReply }, reply) {
    const note = journalReply ? this.#journal.finished(callId, reply) : this.#journal.finishedInSecret(callId, reply);
    await note.catch(() => {});
  }
}

function requireSameDigest(call, digest) {
  if (call.digest === digest) return;
  throw new Failure("CALL_ID_REUSED", "This call id was used for another request. Use a new id for a new request.");
}

function withdrawn() {
  throw notSent("WITHDRAWN", "Nothing of this call was sent, and nothing will be under this id. Use a new id to send it.", { lasting: true });
}

function cannotWithdraw(error) {
  throw new Failure("UNAVAILABLE", `This instance cannot write its journal (${error?.code ?? error?.name}), so it cannot rule out that the call is sent later. Free or repair its disk, then ask again.`);
}

function busy() {
  return new Failure("UNAVAILABLE", `This instance is carrying out ${limits.MAX_CONCURRENT_CALLS} calls already. Try again in a moment.`, {
    reason: "TOO_MANY_CALLS",
    retryAfterMs: limits.BUSY_RETRY_AFTER_MS,
  });
}

function journalUnavailable(error) {
  throw notSent("JOURNAL_UNAVAILABLE", `This instance cannot write its journal (${error?.code ?? error?.name}), so it sends nothing. Free or repair its disk, then restart it.`);
}

/** What leaves the bridge: no credential of the call, and no cookie, which would be a new credential. */
function maskedReply(masker, { status, headers, body, truncated }) {
  const masked = {
    status,
    headers: headers.map(([name, value]) => [masker.header(name), isCookie(name) ? REDACTED : masker.header(value)]),
    bodyBase64: masker.bytes(body).toString("base64"),
    truncated,
  };
  const digest = createHash("sha256").update(JSON.stringify(masked)).digest("hex");
  return { ...masked, digest: `sha256:${digest}` };
}

const isCookie = (name) => name.toLowerCase() === "set-cookie" || name.toLowerCase() === "set-cookie2";
