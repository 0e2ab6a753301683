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
};

for (const [name, spelling] of Object.entries(SPELLINGS)) {
  test(`a credential is masked when it comes back spelt as ${name}`, () => {
    const masked = createMasker([SECRET]).text(`before ${spelling} after ${spelling}`);
    assert.equal(masked.replaceAll("=", ""), `before ${REDACTED} after ${REDACTED}`);
  });
}

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

test("an empty credential masks nothing", () => {
  assert.equal(createMasker([""]).text("text"), "text");
});
