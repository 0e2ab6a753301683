// Finds credential values in whatever a service sends back, in every spelling that a service may give
// them, and replaces them. Works on bytes, so that binary replies stay intact elsewhere.

export const REDACTED = "[redacted]";
const REDACTED_BYTES = Buffer.from(REDACTED);

/** Shorter base64 fragments would match by chance. */
const MIN_BASE64_FRAGMENT = 8;

/** A masker for these secret strings: `bytes(buffer)`, `text(string)`, `header(string)`, each a masked copy. */
export function createMasker(secrets) {
  const needles = needlesOf(secrets);
  const bytes = (buffer) => needles.reduce(replaceAll, buffer);
  return {
    bytes,
    text: (value) => bytes(Buffer.from(value, "utf8")).toString("utf8"),
    // Node reads and writes header values as latin1, one character a byte.
    header: (value) => bytes(Buffer.from(value, "latin1")).toString("latin1"),
  };
}

/** Longest first: a spelling that contains another one is then replaced as a whole. */
function needlesOf(secrets) {
  const spellings = new Set(secrets.filter((secret) => secret !== "").flatMap(spellingsOf));
  return [...spellings].map((spelling) => Buffer.from(spelling, "utf8")).sort((a, b) => b.length - a.length);
}

function spellingsOf(secret) {
  const bytes = Buffer.from(secret, "utf8");
  return [secret, ...percentSpellings(secret), ...jsonSpellings(secret), ...base64Spellings(bytes), ...hexSpellings(bytes)];
}

function hexSpellings(secret) {
  const hex = secret.toString("hex");
  return [hex, hex.toUpperCase()];
}

function percentSpellings(secret) {
  const component = encodeURIComponent(secret.toWellFormed());
  // RFC 3986 keeps fewer characters than encodeURIComponent does.
  const strict = component.replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  const form = strict.replace(/%20/g, "+");
  return [component, strict, form].flatMap((spelling) => [spelling, lowerCaseEscapes(spelling)]);
}

const lowerCaseEscapes = (text) => text.replace(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase());

function jsonSpellings(secret) {
  const plain = JSON.stringify(secret).slice(1, -1);
  const spellings = [plain, plain.replaceAll("/", "\\/")];
  // Go and others escape what HTML minds, many serializers escape all that is not ASCII, in either case of hex.
  for (const escaped of [/[<>&]/g, /[^\x20-\x7e]/g, /[<>&]|[^\x20-\x7e]/g]) {
    const lower = plain.replace(escaped, unicodeEscape);
    spellings.push(lower, lower.replace(/\\u[0-9a-f]{4}/g, (e) => `\\u${e.slice(2).toUpperCase()}`));
  }
  return spellings;
}

const unicodeEscape = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** Base64 of the secret alone, and the part that stays the same wherever the secret stands in something larger
 *  (as in `Basic base64(user:token)`): it depends on the place modulo three. */
function base64Spellings(secret) {
  const spellings = [secret.toString("base64")];
  for (const offset of [0, 1, 2]) {
    const fragment = stableFragment(secret, offset);
    if (fragment.length >= MIN_BASE64_FRAGMENT) spellings.push(fragment);
  }
  return spellings.flatMap((s) => [s, s.replaceAll("+", "-").replaceAll("/", "_")]);
}

function stableFragment(secret, offset) {
  const encoded = Buffer.concat([Buffer.alloc(offset), secret]).toString("base64").replaceAll("=", "");
  const sharedAtStart = [0, 2, 3][offset];
  const sharedAtEnd = (offset + secret.length) % 3 === 0 ? 0 : 1;
  return encoded.slice(sharedAtStart, encoded.length - sharedAtEnd);
}

function replaceAll(haystack, needle) {
  let at = haystack.indexOf(needle);
  if (at < 0) return haystack;
  const parts = [];
  let from = 0;
  for (; at >= 0; at = haystack.indexOf(needle, from)) {
    parts.push(haystack.subarray(from, at), REDACTED_BYTES);
    from = at + needle.length;
  }
  parts.push(haystack.subarray(from));
  return Buffer.concat(parts);
}
