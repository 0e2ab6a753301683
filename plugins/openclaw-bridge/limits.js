// Every limit of the bridge, with its unit and its reason.

const KIB = 1024;
const MIB = 1024 * KIB;
const SECOND = 1000;
const DAY = 24 * 60 * 60 * SECOND;

/** Calls performed at once. Each may hold a request and a reply, so this bounds memory to about 1 GiB at worst. */
export const MAX_CONCURRENT_CALLS = 64;
/** What a caller beyond that limit is told to wait, in milliseconds. */
export const BUSY_RETRY_AFTER_MS = 250;

/** Decoded bytes of a request's body. In base64 it must fit the gateway's frame of 25 MiB. */
export const MAX_REQUEST_BODY_BYTES = 8 * MIB;
/** Decoded bytes of a reply's body when the caller names no limit. */
export const DEFAULT_RESPONSE_BYTES = 8 * MIB;
/** The most that a caller may ask for: in base64 it still fits the gateway's frame of 25 MiB. */
export const MAX_RESPONSE_BYTES = 16 * MIB;
/** Bytes of a reply's status line and headers. */
export const MAX_RESPONSE_HEADER_BYTES = 64 * KIB;
/** Headers of a request. */
export const MAX_REQUEST_HEADERS = 128;
/** Characters of a URL. */
export const MAX_URL_LENGTH = 16 * KIB;

/** Credential values in one call, and the bytes of each: masking searches the reply for every one. */
export const MAX_SECRETS = 32;
export const MAX_SECRET_BYTES = 16 * KIB;

/** Milliseconds for DNS, TCP and TLS together. Until they are through, nothing was sent. */
export const CONNECT_TIMEOUT_MS = 10 * SECOND;
/** Longest call, in milliseconds: a stopping gateway waits 315 s for calls in flight. */
export const MAX_TIMEOUT_MS = 300 * SECOND;
/** An idle connection is kept this long, in milliseconds: less than the 5 s after which common servers hang up,
 *  because a request that races with the hang-up has an unknown outcome. */
export const KEEP_ALIVE_IDLE_MS = 4 * SECOND;

/** Bytes of one journaled reply, as JSON. Of a larger one only the digest is kept. */
export const MAX_JOURNALED_REPLY_BYTES = 256 * KIB;
/** File size that starts a compaction. Oldest replies give way first (their digests stay). */
export const MAX_JOURNAL_BYTES = 128 * MIB;
/** Calls remembered, about 300 bytes of memory each. Beyond it the oldest are forgotten, which the journal notes. */
export const MAX_JOURNAL_ENTRIES = 100_000;
/** How long a call id is remembered, in milliseconds. What may have been forgotten is never performed again by itself. */
export const JOURNAL_RETENTION_MS = 7 * DAY;

/** How far the caller's measure of a call's age may be off, in milliseconds, where it is held against what was forgotten. */
export const AGE_TOLERANCE_MS = 10 * 60 * SECOND;

/** How often pairing requests are looked at, in milliseconds: often until every listed device is paired. */
export const APPROVAL_SWEEP_MS = 1 * SECOND;
export const APPROVAL_IDLE_SWEEP_MS = 15 * SECOND;
