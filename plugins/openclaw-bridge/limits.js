// Every limit of the bridge, with its unit.

/** Calls under way at once; further ones are told to come back. */
export const CALLS_IN_FLIGHT_MAX = 64;
/** A request's body, in bytes. */
export const REQUEST_BYTES_MAX = 8 << 20;
/** A reply's body where the caller does not say, and at most; in bytes. */
export const RESPONSE_BYTES_MAX = 8 << 20;
/** A call's time where the caller does not say, and at most; in milliseconds. */
export const TIMEOUT_MS_DEFAULT = 30_000;
export const TIMEOUT_MS_MAX = 120_000;
/** A reply larger than this is journaled by its digest alone, in bytes of its JSON. */
export const JOURNALED_REPLY_BYTES_MAX = 256 << 10;
/** How long the journal remembers a call, in milliseconds: longer than any retry. */
export const JOURNAL_RETENTION_MS = 7 * 24 * 3600 * 1000;
/** The journal is written anew at start where it is larger, in bytes. */
export const JOURNAL_COMPACT_BYTES = 32 << 20;
/** A call's id, in characters. */
export const CALL_ID_CHARS_MAX = 200;
/** Pause between two looks at pending device pairings, in milliseconds. */
export const PAIRING_INTERVAL_MS = 1000;
