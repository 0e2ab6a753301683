import assert from "node:assert/strict";
import { test } from "node:test";
import { readCall, readRecall } from "../contract.js";
import { callTo } from "../testing/helpers.js";

const URL_WITH_SECRET = "https://api.example.com/v1?token=canary-value";

test("a call is read with its defaults", () => {
  const call = readCall({ callId: "c-1", digest: "sha256:00", timeoutMs: 10, request: { method: "GET", url: "https://a.example/b?c" } });
  assert.equal(call.request.url.href, "https://a.example/b?c");
  assert.equal(call.request.body, null);
  assert.deepEqual(call.request.headers, []);
  assert.equal(call.privateNetwork, "refuse");
  assert.equal(call.retryUnknown, false);
  assert.equal(call.maxResponseBytes, 8 * 1024 * 1024);
});

test("who asks what became of a call says which, and how long ago it was sent", () => {
  assert.deepEqual(readRecall({ callId: "c-1", digest: "sha256:00", sentAgoMs: 7 }), { callId: "c-1", digest: "sha256:00", journalId: null, sentAgoMs: 7 });
  for (const [changes, field] of [[{ sentAgoMs: undefined }, "sentAgoMs"], [{ callId: "a b" }, "callId"], [{ digest: null }, "digest"]]) {
    const params = { callId: "c-1", digest: "sha256:00", sentAgoMs: 7, ...changes };
    assert.throws(() => readRecall(params), (error) => error.code === "INVALID_REQUEST" && error.details.field === field);
  }
  assert.throws(() => readRecall({ callId: "c-1", digest: "d", sentAgoMs: 7, request: {} }), /unknown field/);
});

test("headers that the bridge sets itself are dropped, others keep their order", () => {
  const headers = [["X-A", "1"], ["Content-Length", "9"], ["Accept-Encoding", "gzip"], ["x-a", "2"]];
  assert.deepEqual(readCall(callTo("https://a.example", { request: { headers } })).request.headers, [["x-a", "1"], ["x-a", "2"]]);
});

const WRONG = {
  "an unknown field": [{ retryUnknwon: true }, "params"],
  "an unknown field of the request": [{ request: { body: "" } }, "params"],
  "no call id": [{ callId: undefined }, "callId"],
  "a call id with a line feed": [{ callId: "a\nb" }, "callId"],
  "no digest": [{ digest: null }, "digest"],
  "a time-out of zero": [{ timeoutMs: 0 }, "timeoutMs"],
  "a time-out beyond the gateway's drain": [{ timeoutMs: 300_001 }, "timeoutMs"],
  "too large a reply": [{ maxResponseBytes: 2 ** 30 }, "maxResponseBytes"],
  "a secret that is no string": [{ secrets: [1] }, "secrets"],
  "a network rule of its own": [{ privateNetwork: "maybe" }, "privateNetwork"],
  "a method of its own": [{ request: { method: "CONNECT" } }, "request.method"],
  "another protocol": [{ request: { url: "file:///etc/passwd" } }, "request.url"],
  "a relative URL": [{ request: { url: "/v1" } }, "request.url"],
  "credentials in the URL": [{ request: { url: "https://u:canary-value@a.example" } }, "request.url"],
  "a header of the connection": [{ request: { headers: [["Transfer-Encoding", "chunked"]] } }, "request.headers[0]"],
  "a header with a line feed": [{ request: { headers: [["a", "canary-value\r\nb: c"]] } }, "request.headers[0]"],
  "a body that is not base64": [{ request: { bodyBase64: "canary-value!" } }, "request.bodyBase64"],
  "a body over the limit": [{ request: { bodyBase64: "A".repeat(12 * 1024 * 1024) } }, "request.bodyBase64"],
};

for (const [name, [changes, field]] of Object.entries(WRONG)) {
  test(`refused by the field's name and without its value: ${name}`, () => {
    const params = callTo(URL_WITH_SECRET, changes);
    assert.throws(() => readCall(params), (error) => {
      assert.equal(error.code, "INVALID_REQUEST");
      assert.equal(error.toGatewayError().code, "INVALID_REQUEST");
      assert.equal(error.toGatewayError().retryable, false);
      if (field !== "params") assert.equal(error.details.field, field);
      assert.ok(!JSON.stringify(error.toGatewayError()).includes("canary-value"));
      return true;
    });
  });
}
