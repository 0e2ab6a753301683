// Finds credential values in whatever a service sends back, in every spelling that a service may give
// them, and replaces them. Works on bytes, so that binary replies stay intact elsewhere.
//
// Services spell byte by byte: one may stand as it is and the next as an escape. So a value is not looked for as a list
// of texts: the reply is read, with every meaning that a place in it may have, and the value followed through it.

export const REDACTED = "[redacted]";
const REDACTED_BYTES = Buffer.from(REDACTED);

/** Shorter base64 fragments would match by chance. */
const MIN_BASE64_FRAGMENT = 8;
/** Backslashes before an escape: JSON within JSON within JSON within JSON. */
const MAX_BACKSLASHES = 8;

const code = (character) => character.charCodeAt(0);
const [PERCENT, EQUALS, BACKSLASH, AMPERSAND, PLUS] = ["%", "=", "\\", "&", "+"].map(code);
const JSON_SHORT = new Map(Object.entries({ '"': '"', "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }).map(([c, meant]) => [code(c), Buffer.from(meant)]));
const HTML_NAMES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
const HTML = /^&(?:amp;)*(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos));/;
/** The most bytes of one character reference that are looked at. */
const MAX_HTML_BYTES = 40;
/** What may stand between two lines of base64 (RFC 2045, 6.8), also where the whole is in JSON or a URL. */
const LINE_BREAK = new Set([0x0d, 0x0a, 0x20, 0x09]);
/** Bytes that may be an escape's first, or a line break. */
const MAY_BE_MORE = Array.from({ length: 256 }, (_, byte) => LINE_BREAK.has(byte) || [PERCENT, EQUALS, BACKSLASH, AMPERSAND, PLUS].includes(byte));

/** A masker for these secret strings: `bytes(buffer)`, `text(string)`, `header(string)`, each a masked copy. */
export function createMasker(secrets) {
  const byFirstByte = index(needlesOf(secrets));
  const bytes = (buffer) => masked(buffer, byFirstByte);
  return {
    bytes,
    text: (value) => bytes(Buffer.from(value, "utf8")).toString("utf8"),
    // Node reads and writes header values as latin1, one character a byte.
    header: (value) => bytes(Buffer.from(value, "latin1")).toString("latin1"),
  };
}

/** A needle is `{bytes, isBroken}`: what is looked for, and whether line breaks may stand within it. */
function needlesOf(secrets) {
  return [...new Set(secrets.filter((secret) => secret !== ""))].flatMap(encodingsOf).flatMap((bytes) => {
    const hex = bytes.toString("hex");
    const whole = [bytes, Buffer.from(hex), Buffer.from(hex.toUpperCase())];
    const base64 = base64Spellings(bytes).map((spelling) => Buffer.from(spelling));
    return [...whole.map((each) => ({ bytes: each, isBroken: false })), ...base64.map((each) => ({ bytes: each, isBroken: true }))];
  });
}

/** UTF-8, UTF-16 and UTF-32: a service that answers in one of the latter puts U+0000 between letters, and whoever reads
 *  over that has the value. */
function encodingsOf(secret) {
  const points = [...secret].map((character) => character.codePointAt(0));
  const utf16 = Buffer.from(secret, "utf16le");
  const utf32 = Buffer.alloc(points.length * 4);
  points.forEach((point, at) => utf32.writeUInt32LE(point, at * 4));
  return [Buffer.from(secret, "utf8"), utf16, Buffer.from(utf16).swap16(), utf32, Buffer.from(utf32).swap32()];
}

/** Base64 of the secret alone, and the part that stays the same wherever the secret stands in something larger
 *  (as in `Basic base64(user:token)`): it depends on the place modulo three. */
function base64Spellings(secret) {
  const spellings = [secret.toString("base64")];
  for (const offset of [0, 1, 2]) {
    const fragment = stableFragment(secret, offset);
    if (fragment.length >= MIN_BASE64_FRAGMENT) spellings.push(fragment);
  }
  return [...new Set(spellings.flatMap((s) => [s, s.replaceAll("+", "-").replaceAll("/", "_")]))];
}

function stableFragment(secret, offset) {
  const encoded = Buffer.concat([Buffer.alloc(offset), secret]).toString("base64").replaceAll("=", "");
  const sharedAtStart = [0, 2, 3][offset];
  const sharedAtEnd = (offset + secret.length) % 3 === 0 ? 0 : 1;
  return encoded.slice(sharedAtStart, encoded.length - sharedAtEnd);
}

function index(needles) {
  const byFirstByte = Array.from({ length: 256 }, () => []);
  for (const needle of needles) byFirstByte[needle.bytes[0]].push(needle);
  return byFirstByte.map((list) => (list.length > 0 ? list : null));
}

function masked(haystack, byFirstByte) {
  const parts = [];
  let from = 0;
  for (let at = 0; at < haystack.length; at += 1) {
    // The longest: a spelling that contains another one is replaced as a whole.
    let end = longest(byFirstByte[haystack[at]], haystack, at);
    if (MAY_BE_MORE[haystack[at]]) for (const [meant] of escapesAt(haystack, at)) end = Math.max(end, longest(byFirstByte[meant[0]], haystack, at));
    if (end < 0) continue;
    parts.push(haystack.subarray(from, at), REDACTED_BYTES);
    from = end;
    at = end - 1;
  }
  if (from === 0) return haystack;
  parts.push(haystack.subarray(from));
  return Buffer.concat(parts);
}

function longest(candidates, haystack, at) {
  if (candidates === null) return -1;
  return candidates.reduce((end, needle) => Math.max(end, endOf(needle, haystack, at)), -1);
}

/** Where the needle that begins at `from` ends at the latest; -1 where it does not stand there. Several readings are
 *  followed at once: a percent sign is itself, or the beginning of what stands for it. */
function endOf(needle, haystack, from) {
  const { bytes } = needle;
  let [read, at] = [0, from];
  for (;;) {
    // As long as a byte can only be itself, there is one way to go.
    while (read < bytes.length && !MAY_BE_MORE[haystack[at]]) {
      if (haystack[at] !== bytes[read]) return -1;
      read += 1;
      at += 1;
    }
    if (read === bytes.length) return at;
    const ways = waysOn(needle, haystack, read, at);
    if (ways.length === 0) return -1;
    if (ways.length > 1) return endOfSeveral(needle, haystack, ways);
    [read, at] = ways[0];
  }
}

/** Pairs of how much of the needle is read then, and where. */
function waysOn({ bytes, isBroken }, haystack, read, place) {
  const at = isBroken && read > 0 ? afterLineBreaks(haystack, place) : place;
  const ways = haystack[at] === bytes[read] ? [[read + 1, at + 1]] : [];
  for (const [meant, next] of escapesAt(haystack, at)) {
    if (startsWith(bytes, read, meant)) ways.push([read + meant.length, next]);
  }
  return ways;
}

function endOfSeveral(needle, haystack, ways) {
  // For how much of the needle was read, where that may have ended.
  const ends = new Map();
  for (const [read, at] of ways) note(ends, read, at);
  for (let read = Math.min(...ends.keys()); read < needle.bytes.length; read += 1) {
    const here = ends.get(read);
    if (here === undefined) continue;
    ends.delete(read);
    for (const end of here) {
      for (const [then, at] of waysOn(needle, haystack, read, end)) note(ends, then, at);
    }
    if (ends.size === 0) return -1;
  }
  return Math.max(...(ends.get(needle.bytes.length) ?? [-1]));
}

function note(ends, read, end) {
  const there = ends.get(read);
  if (there === undefined) ends.set(read, new Set([end]));
  else there.add(end);
}

function startsWith(bytes, at, part) {
  return at + part.length <= bytes.length && part.every((byte, offset) => bytes[at + offset] === byte);
}

const NOTHING = [];

/** What may begin at this place besides the byte itself: pairs of the bytes that are meant and where the escape ends. */
function escapesAt(haystack, at) {
  switch (haystack[at]) {
    case PERCENT:
      return percentAt(haystack, at);
    case BACKSLASH:
      return backslashAt(haystack, at);
    case AMPERSAND:
      return referenceAt(haystack, at);
    case EQUALS:
      return quotedPrintableAt(haystack, at);
    case PLUS:
      return [[Buffer.from(" "), at + 1]];
    default:
      return NOTHING;
  }
}

/** `%41`, and `%2541` where it was encoded again. */
function percentAt(haystack, at) {
  const found = [];
  for (let place = at + 1; found.length < 4; place += 2) {
    const byte = hexAt(haystack, place, 2);
    if (byte < 0) break;
    found.push([[byte], place + 2]);
    if (byte !== PERCENT) break;
  }
  return found;
}

function quotedPrintableAt(haystack, at) {
  const byte = hexAt(haystack, at + 1, 2);
  return byte < 0 ? NOTHING : [[[byte], at + 3]];
}

/** JSON's escapes, with the backslash doubled each time that the JSON was put into JSON. */
function backslashAt(haystack, at) {
  const found = [];
  let after = at;
  while (haystack[after] === BACKSLASH && after - at < MAX_BACKSLASHES) {
    after += 1;
    if ([2, 4, 8].includes(after - at)) found.push([[BACKSLASH], after]);
  }
  const short = JSON_SHORT.get(haystack[after]);
  if (short !== undefined) found.push([short, after + 1]);
  const unit = haystack[after] === code("u") ? hexAt(haystack, after + 1, 4) : -1;
  if (unit >= 0) found.push(unicodeAt(haystack, unit, after + 5));
  return found;
}

/** One character, of which this was the first or only unit. */
function unicodeAt(haystack, unit, after) {
  if (unit >= 0xd800 && unit < 0xdc00) {
    let at = after;
    while (haystack[at] === BACKSLASH && at - after < MAX_BACKSLASHES) at += 1;
    const low = at > after && haystack[at] === code("u") ? hexAt(haystack, at + 1, 4) : -1;
    if (low >= 0xdc00 && low < 0xe000) return [Buffer.from(String.fromCharCode(unit, low)), at + 5];
  }
  return [Buffer.from(String.fromCharCode(unit)), after];
}

/** HTML's and XML's character references. */
function referenceAt(haystack, at) {
  const found = HTML.exec(haystack.subarray(at, at + MAX_HTML_BYTES).latin1Slice());
  if (found === null) return NOTHING;
  const [whole, decimal, hexadecimal, name] = found;
  const point = decimal === undefined ? Number.parseInt(hexadecimal ?? "", 16) : Number(decimal);
  const meant = name === undefined ? (point <= 0x10ffff ? String.fromCodePoint(point) : "") : HTML_NAMES[name];
  if (meant === "") return NOTHING;
  // `&amp;lt;` is `&lt;` in HTML, and `<` in HTML within it.
  const shorter = whole.startsWith("&amp;") && whole !== "&amp;" ? [[Buffer.from("&"), at + "&amp;".length]] : [];
  return [...shorter, [Buffer.from(meant), at + whole.length]];
}

function hexAt(haystack, at, digits) {
  let value = 0;
  for (let offset = 0; offset < digits; offset += 1) {
    const digit = Number.parseInt(String.fromCharCode(haystack[at + offset] ?? 0), 16);
    if (Number.isNaN(digit)) return -1;
    value = value * 16 + digit;
  }
  return value;
}

function afterLineBreaks(haystack, at) {
  for (;;) {
    if (LINE_BREAK.has(haystack[at])) {
      at += 1;
      continue;
    }
    const isBreak = ([meant]) => meant.length === 1 && (meant[0] === 0x0a || meant[0] === 0x0d);
    const escape = escapesAt(haystack, at).find(isBreak);
    // Quoted-printable breaks a line with an equals sign at its end.
    const soft = haystack[at] === EQUALS && LINE_BREAK.has(haystack[at + 1]);
    if (escape === undefined && !soft) return at;
    at = soft ? at + 1 : escape[1];
  }
}
