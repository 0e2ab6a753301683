import assert from "node:assert/strict";
import { test } from "node:test";
import { fromUtf8 } from "../call.js";
import { allow, anything, choice, done, get, integer, list, log, object, optional, refused, text } from "../index.js";
import { written } from "../log.js";
import { Failure } from "../outcome.js";
import { percentEncoded } from "../request.js";
import { Conversation, decision } from "../testing.js";
import { read } from "../types.js";

const wrong = (type, value) => {
    try {
        read(type, value);
        return [];
    } catch (failure) {
        return failure.wit.val.map(({ pointer, message }) => `${pointer}: ${message}`);
    }
};

test("everything that is wrong with a value is said at once, and where", () => {
    const type = object({ name: text({ maxLength: 2 }), ids: list(integer({ minimum: 1 })), kind: optional(choice(["a"])) });
    assert.deepEqual(read(type, { name: "🦀🦀", ids: [1] }), { name: "🦀🦀", ids: [1] });
    assert.deepEqual(wrong(type, { name: "abc", ids: [1, 0, "x"], "a/b": 1, kind: "b" }), [
        "/a~1b: is not known",
        "/name: must have at most 2 characters",
        "/ids/1: must be from 1 to Infinity",
        "/ids/2: must be a whole number",
        "/kind: must be one of a",
    ]);
    assert.deepEqual(wrong(type, []), [": must be an object"]);
    assert.deepEqual(wrong(type, {}), [": lacks `name`", ": lacks `ids`"]);
});

test("a name that every object has is no property", () => {
    assert.deepEqual(wrong(object({}), JSON.parse('{"constructor": 1}')), ["/constructor: is not known"]);
    const skill = { settings: {}, actions: {} };
    assert.equal(new Conversation(skill, "constructor", {}).failure().tag, "invalid-params");
});

test("bytes are read as TextDecoder reads them", () => {
    const samples = ["", "a", "ä€🦀", "\u0000", "\ufeffx"].map((sample) => [...new TextEncoder().encode(sample)]);
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    for (const bytes of [...samples, [0xff], [0x61, 0xc3], [0xe2, 0x82], [0xc0, 0x80], [0xed, 0xa0, 0x80]])
        assert.equal(fromUtf8(new Uint8Array(bytes)).replaceAll("\ufffd", ""), decoder.decode(new Uint8Array(bytes)).replaceAll("\ufffd", ""));
});

test("a segment stays one segment, and half a character is none", () => {
    const { val } = get("https://x.example").path("a/../b?c#d'\ud800").wit.url.at(-1);
    assert.equal(val, "/a%2F..%2Fb%3Fc%23d%27%EF%BF%BD");
    assert.throws(() => get("https://x.example").path(".."), Failure);
    assert.equal(percentEncoded("*()"), "%2A%28%29");
});

test("a function runs again from its start with the replies that it had", () => {
    const run = (call) => {
        const first = call.send(get("https://x.example/1")).json();
        const second = call.send(get("https://x.example/2").query("after", first.id)).json();
        return done([first, second], "both");
    };
    const skill = { actions: { both: { params: {}, output: anything(), run } } };
    const call = new Conversation(skill, "both", {});
    assert.equal(call.request().line, "GET https://x.example/1");
    assert.equal(call.reply(200, { id: 7 }).request().line, "GET https://x.example/2?after=7");
    assert.deepEqual(call.reply(200, { id: 8 }).finish().output, [{ id: 7 }, { id: 8 }]);
});

test("a mistake in a plugin is told, and kept in the trace", () => {
    const run = () => undefined.nothing;
    const skill = { actions: { broken: { params: {}, run }, no: { params: {}, run: () => { throw refused("no", "never"); } } } };
    const failure = new Conversation(skill, "broken", {}).failure();
    assert.equal(failure.tag, "unexpected-reply");
    assert.match(failure.val, /the plugin itself failed: TypeError/);
    assert.equal(written.at(-1)[0], "error");
    assert.equal(new Conversation(skill, "no", {}).refusal().code, "no");
    log.info("said");
    assert.deepEqual(written.at(-1), ["info", "said"]);
});

test("a policy that comes to grief denies", () => {
    const policy = { name: "p", settings: {}, decide: () => undefined.nothing };
    assert.equal(decision(policy, {}).tag, "deny");
    assert.equal(decision({ ...policy, decide: () => allow() }, { more: 1 }).val, "the policy p cannot be applied: /more is not known");
});
