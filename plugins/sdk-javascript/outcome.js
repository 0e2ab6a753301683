// How a call ends, and how a function of an action stops on the way.

/** Why an action cannot go on, as the contract has it. */
export class Failure extends Error {
    constructor(wit) {
        super(JSON.stringify(wit));
        this.wit = wit;
    }
}

/** The function waits for the reply to this request. */
export class Perform {
    constructor(request) {
        this.request = request;
    }
}

const refusal = (code, message, more = {}) =>
    new Failure({ tag: "refused", val: { code, message, retryAfterMs: null, credentialRejected: false, ...more } });

/** The service said no: its own code, and words that say what to do. `throw refused(...)`. */
export const refused = (code, message) => refusal(code, message);
/** Nothing happened, and the same call may work after so many milliseconds. */
export const later = (code, message, retryAfterMs) => refusal(code, message, { retryAfterMs });
/** The service does not accept the credential. */
export const credentialRejected = (code, message) => refusal(code, message, { credentialRejected: true });
/** The parameter at this JSON Pointer cannot be used. */
export const invalid = (pointer, message) => new Failure({ tag: "invalid-params", val: [{ pointer, message }] });
/** The service answered in a way that is not known. */
export const unexpected = (what) => new Failure({ tag: "unexpected-reply", val: what });

/** What an action came to: its output, and one line for the trace. */
export const done = (output, summary) => ({ output, summary });
