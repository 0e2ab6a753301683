/**
 * A call that ends without an answer. `code` is what callers branch on; `message` is for people and
 * never holds a credential.
 *
 * - `INVALID_REQUEST`   the call breaks the contract; nothing was done
 * - `CALL_ID_REUSED`    the id belongs to another request; nothing was done
 * - `UNAVAILABLE`       too busy or not ready; nothing was done, try again later
 * - `NOT_SENT`          not a byte left this instance; the same id may be tried again
 * - `OUTCOME_UNKNOWN`   the request may have arrived; never repeated unless `retryUnknown` says so
 */
export class Failure extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = "Failure";
    this.code = code;
    this.details = details;
  }

  /** The error in the shape of the gateway protocol, whose own codes are few: ours travels in `details.code`. */
  toGatewayError() {
    const { retryAfterMs, ...details } = this.details;
    const isCallersFault = this.code === "INVALID_REQUEST" || this.code === "CALL_ID_REUSED";
    return {
      code: isCallersFault ? "INVALID_REQUEST" : "UNAVAILABLE",
      message: this.message,
      retryable: this.code === "UNAVAILABLE" || (this.code === "NOT_SENT" && !details.lasting),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      details: { ...details, code: this.code },
    };
  }
}

export const notSent = (reason, message, details = {}) => new Failure("NOT_SENT", message, { reason, ...details });
export const outcomeUnknown = (reason, message, details = {}) =>
  new Failure("OUTCOME_UNKNOWN", message, { reason, ...details });
