import assert from "node:assert/strict";
import { test } from "node:test";
import { createMasker, REDACTED } from "../mask.js";

const SECRET = "xoxb-Zürich/42+\"tok<en>\"&$";

const SPELLINGS = {
  plain: SECRET,
  percent: encodeURIComponent(SECRET),
  "percent, lower case": encodeURIComponent(SECRET).replace(/%../g, (e) => e.toLowerCase()),
  form: new URLSearchParams({ v: SECRET }).toString().slice(2),
  json: JSON.stringify(SECRET).slice(1, -1),
  "json with escaped slashes": JSON.stringify(SECRET).slice(1, -1).replaceAll("/", "\\/"),
  "json in ascii": JSON.stringify(SECRET).slice(1, -1).replace("ü", "\\u00fc"),
  "json in ascii, upper case": JSON.stringify(SECRET).slice(1, -1).replace("ü", "\\u00FC"),
  "json as Go writes it": JSON.stringify(SECRET).slice(1, -1).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
  base64: Buffer.from(SECRET).toString("base64"),
  hex: Buffer.from(SECRET).toString("hex"),
  "hex, upper case": Buffer.from(SECRET).toString("hex").toUpperCase(),
  base64url: Buffer.from(SECRET).toString("base64url"),
  "base64 in lines": lines(Buffer.from(SECRET).toString("base64"), 9, "\r\n"),
  "base64 in lines, in json": lines(Buffer.from(SECRET).toString("base64"), 12, "\\n"),
  "base64 in json": Buffer.from(SECRET).toString("base64").replaceAll("/", "\\/"),
  "base64 in a url": encodeURIComponent(Buffer.from(SECRET).toString("base64")).replaceAll("%3D", ""),
  "json within json": JSON.stringify(JSON.stringify(SECRET)).slice(3, -3),
  "percent, every character": everyByte((hex) => `%${hex}`),
  "percent of percent": encodeURIComponent(encodeURIComponent(SECRET)),
  "json, every character": everyUnit((hex) => `\\u${hex}`),
  "json within json, every character": everyUnit((hex) => `\\\\u${hex}`),
  html: SECRET.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;"),
  "html in decimal": [...SECRET].map((c) => `&#${c.codePointAt(0)};`).join(""),
  "html in hexadecimal": [...SECRET].map((c) => `&#x${c.codePointAt(0).toString(16)};`).join(""),
  "one character so and the next otherwise": [...SECRET].map((c, at) => (at % 2 === 0 ? encodeURIComponent(c) : c)).join(""),
};

function lines(text, length, end) {
  return text.match(new RegExp(`.{1,${length}}`, "g")).join(end);
}
function everyByte(write) {
  return [...Buffer.from(SECRET)].map((byte) => write(byte.toString(16).toUpperCase())).join("");
}
function everyUnit(write) {
  return [...SECRET].map((c) => write(c.charCodeAt(0).toString(16).padStart(4, "0"))).join("");
}

for (const [name, spelling] of Object.entries(SPELLINGS)) {
  test(`a credential is masked when it comes back spelt as ${name}`, () => {
    const masked = createMasker([SECRET]).text(`before ${spelling} after ${spelling}`);
    assert.equal(masked.replaceAll("=", ""), `before ${REDACTED} after ${REDACTED}`);
  });
}

const utf16 = Buffer.from(SECRET, "utf16le");
const utf32 = Buffer.concat([...SECRET].map((c) => Buffer.from([c.charCodeAt(0), 0, 0, 0])));
const WIDE = { "UTF-16": utf16, "UTF-16, big end first": Buffer.from(utf16).swap16(), "UTF-32": utf32, "UTF-32, big end first": Buffer.from(utf32).swap32() };

for (const [name, spelling] of Object.entries(WIDE)) {
  test(`a credential is masked when it comes back in ${name}`, () => {
    const { bytes } = createMasker([SECRET]);
    const [before, after] = [Buffer.from("before"), Buffer.from("after")];
    assert.equal(bytes(Buffer.concat([before, spelling, after])).toString(), `before${REDACTED}after`);
    assert.equal(bytes(Buffer.from(spelling.toString("base64"))).toString().replaceAll("=", ""), REDACTED);
  });
}

test("a credential is masked when U+0000 stands between its letters in JSON", () => {
  const apart = JSON.stringify([..."xoxb-1234"].join("\0"));
  assert.equal(createMasker(["xoxb-1234"]).text(apart.replace(/"$/, '\\u0000"')), `"${REDACTED}"`);
});

for (const user of ["", "u", "us", "use"]) {
  test(`a credential inside base64 is masked after ${user.length} other bytes`, () => {
    const basic = Buffer.from(`${user}${SECRET}:more`).toString("base64");
    const masked = createMasker([SECRET]).text(`Basic ${basic}`);
    assert.ok(masked.includes(REDACTED));
    const left = Buffer.from(masked.slice("Basic ".length).split(REDACTED)[0], "base64").toString();
    assert.ok(!left.includes(SECRET.slice(0, 3)), left);
  });
}

test("bytes around a credential stay as they are, also where they are not text", () => {
  const noise = Buffer.from([0xff, 0x00, 0xfe]);
  const masked = createMasker(["secret"]).bytes(Buffer.concat([noise, Buffer.from("secret"), noise]));
  assert.deepEqual(masked, Buffer.concat([noise, Buffer.from(REDACTED), noise]));
});

test("of two credentials, one within the other, both are masked whole", () => {
  assert.equal(createMasker(["abc", "xxabcxx"]).text("abc xxabcxx"), `${REDACTED} ${REDACTED}`);
});

test("a reply is searched in a time that grows with its length alone, whatever it is made of", () => {
  const secret = Array.from({ length: 20 }, (_, at) => `${SECRET}${at}`).join("");
  const masker = createMasker([secret, SECRET]);
  const nearly = [secret.slice(0, -1), encodeURIComponent(secret).slice(0, -1), Buffer.from(secret).toString("base64").slice(0, -8)];
  for (const filler of ["a", "\\", "%25", "&#", "&amp;", "=", "\\u0078", ...nearly]) {
    const reply = Buffer.from(filler.repeat(Math.ceil((256 << 10) / filler.length)));
    const before = process.cpuUsage();
    masker.bytes(reply);
    const { user } = process.cpuUsage(before);
    assert.ok(user < 4_000_000, `${filler.slice(0, 20)}: ${user} microseconds for a quarter of a MiB`);
  }
});

test("a credential with a line break is masked as JSON has it", () => {
  const key = "-----BEGIN KEY-----\nabc/def\n-----END KEY-----\n";
  for (const said of [JSON.stringify(key), JSON.stringify(JSON.stringify(key))]) {
    assert.ok(!createMasker([key]).text(said).includes("abc"), said);
  }
});

test("an empty credential masks nothing", () => {
  assert.equal(createMasker([""]).text("text"), "text");
});
