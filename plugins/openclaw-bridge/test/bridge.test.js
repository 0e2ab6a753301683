import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, readdirSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import zlib from "node:zlib";
import { Executor } from "../execute.js";
import { Journal } from "../journal.js";
import { formsOf, maskBytes, maskText } from "../mask.js";
import { isPrivate } from "../perform.js";

const SECRET = "xoxb-canary/with+odd \"chars\"";
const DIGEST = "a".repeat(64);
let server, base, requests, behave;

before(async () => {
  server = http.createServer((request, response) => {
    requests.push({ url: request.url, authorization: request.headers.authorization });
    behave(request, response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${server.address().port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  requests = [];
  behave = (_, response) => response.end("fine");
});

const dir = () => mkdtempSync(join(tmpdir(), "bridge-"));
const call = (over = {}) => ({
  callId: "call-1",
  digest: DIGEST,
  secrets: [SECRET],
  privateNetwork: "allow",
  request: { method: "POST", url: `${base}/do`, headers: [["Authorization", `Bearer ${SECRET.replaceAll(/[^\w-]/g, "")}`]], bodyBase64: Buffer.from("x").toString("base64") },
  ...over,
});
const refusal = async (promise) => {
  const error = await promise.then(() => assert.fail("not refused"), (e) => e);
  return error.shape.details.code;
};

test("a call that is sent again gets the first answer", async () => {
  const executor = new Executor(Journal.open(dir()));
  const first = await executor.execute(call());
  const second = await executor.execute(call({ resend: true, journalId: first.journalId }));
  assert.equal(requests.length, 1);
  assert.equal(first.replayed, false);
  assert.equal(second.replayed, true);
  assert.deepEqual(second.reply, first.reply);
});

test("two at once are one", async () => {
  const executor = new Executor(Journal.open(dir()));
  const [a, b] = await Promise.all([executor.execute(call()), executor.execute(call())]);
  assert.equal(requests.length, 1);
  assert.deepEqual(a.reply, b.reply);
});

test("the first answer outlives the process", async () => {
  const place = dir();
  const first = await new Executor(Journal.open(place)).execute(call());
  const again = await new Executor(Journal.open(place)).execute(call({ resend: true, journalId: first.journalId }));
  assert.equal(requests.length, 1);
  assert.deepEqual(again.reply, first.reply);
});

test("a call that another process started and did not finish is unknown, and is not performed", async () => {
  const place = dir();
  await Journal.open(place).started("call-1", DIGEST);
  const executor = new Executor(Journal.open(place));
  assert.equal(await refusal(executor.execute(call({ resend: true }))), "OUTCOME_UNKNOWN");
  assert.equal(requests.length, 0);
  const done = await executor.execute(call({ retryUnknown: true }));
  assert.equal(done.reply.status, 200);
  assert.equal(requests.length, 1);
});

test("a call sent again to another journal is unknown", async () => {
  const executor = new Executor(Journal.open(dir()));
  assert.equal(await refusal(executor.execute(call({ resend: true, journalId: "another" }))), "OUTCOME_UNKNOWN");
  assert.equal(requests.length, 0);
});

test("the same id with another request is refused", async () => {
  const executor = new Executor(Journal.open(dir()));
  await executor.execute(call());
  assert.equal(await refusal(executor.execute(call({ digest: "b".repeat(64) }))), "CALL_ID_REUSED");
});

test("a refused connection was not sent, and may be tried again", async () => {
  const executor = new Executor(Journal.open(dir()));
  const closed = { ...call().request, url: "http://127.0.0.1:1/do" };
  assert.equal(await refusal(executor.execute(call({ request: closed }))), "NOT_SENT");
  assert.equal((await executor.execute(call())).reply.status, 200);
});

test("a reply that does not come is unknown", async () => {
  const executor = new Executor(Journal.open(dir()));
  behave = () => {};
  assert.equal(await refusal(executor.execute(call({ timeoutMs: 100 }))), "OUTCOME_UNKNOWN");
  assert.equal(await refusal(executor.execute(call({ resend: true, journalId: executor.journal.id }))), "OUTCOME_UNKNOWN");
  assert.equal(requests.length, 1);
});

test("a connection that is cut is unknown", async () => {
  const executor = new Executor(Journal.open(dir()));
  behave = (request) => request.socket.destroy();
  assert.equal(await refusal(executor.execute(call())), "OUTCOME_UNKNOWN");
});

test("a credential comes back masked and stands nowhere on the disk", async () => {
  const place = dir();
  behave = (_, response) => {
    response.setHeader("x-echo", encodeURIComponent(SECRET));
    response.setHeader("content-encoding", "gzip");
    response.end(zlib.gzipSync(`${SECRET} ${JSON.stringify({ token: SECRET })} ${Buffer.from(SECRET).toString("base64")}`));
  };
  const answer = await new Executor(Journal.open(place)).execute(call());
  const body = Buffer.from(answer.reply.bodyBase64, "base64").toString();
  assert.equal(body, '[redacted] {"token":"[redacted]"} [redacted]');
  const onDisk = readdirSync(place).map((name) => readFileSync(join(place, name), "latin1")).join("");
  for (const form of formsOf([SECRET])) {
    assert.ok(!JSON.stringify(answer).includes(form), form);
    assert.ok(!onDisk.includes(form), form);
  }
});

test("a line that a kill cut short is dropped, and the journal goes on", async () => {
  const place = dir();
  const journal = Journal.open(place);
  await journal.started("whole", DIGEST);
  appendFileSync(join(place, "calls.jsonl"), '{"callId":"cut","event":"sta');
  const reopened = Journal.open(place);
  assert.equal(reopened.get("whole").state, "started");
  assert.equal(reopened.get("cut"), undefined);
  await reopened.finished("whole", DIGEST, { status: 200 });
  assert.deepEqual(Journal.open(place).replyOf("whole"), { status: 200 });
});

test("private addresses are refused, also behind a name", async () => {
  for (const address of ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1"]) assert.ok(isPrivate(address), address);
  for (const address of ["8.8.8.8", "1.1.1.1", "2606:4700::1111"]) assert.ok(!isPrivate(address), address);
  const executor = new Executor(Journal.open(dir()));
  for (const [i, url] of [`${base}/do`, base.replace("127.0.0.1", "localhost"), "http://[::1]:1/", "http://2130706433/"].entries()) {
    const request = { ...call().request, url };
    assert.equal(await refusal(executor.execute(call({ callId: `private-${i}`, privateNetwork: "refuse", request }))), "NOT_SENT");
  }
  assert.equal(requests.length, 0);
});

test("a redirect is answered, not followed", async () => {
  behave = (_, response) => response.writeHead(302, { location: "http://169.254.169.254/" }).end();
  const { reply } = await new Executor(Journal.open(dir())).execute(call());
  assert.equal(reply.status, 302);
  assert.equal(requests.length, 1);
});

test("a large reply is cut and says so", async () => {
  behave = (_, response) => response.end("x".repeat(10_000));
  const { reply } = await new Executor(Journal.open(dir())).execute(call({ maxResponseBytes: 100 }));
  assert.equal(reply.truncated, true);
  assert.equal(Buffer.from(reply.bodyBase64, "base64").length, 100);
});

test("what is malformed is refused before anything happens", async () => {
  const executor = new Executor(Journal.open(dir()));
  const { request } = call();
  for (const wrong of [null, {}, call({ digest: "x" }), call({ callId: "" }), call({ request: { ...request, method: "TRACE" } }), call({ request: { ...request, headers: [["a", "b\r\nc: d"]] } })]) {
    assert.equal(await refusal(executor.execute(wrong)), "INVALID_CALL");
  }
  assert.equal(executor.journal.entries.size, 0);
});

test("masking leaves other bytes alone", () => {
  const bytes = Buffer.from([0, 255, 128, 7]);
  assert.equal(maskBytes(bytes, formsOf([SECRET])), bytes);
  assert.equal(maskText("nothing here", formsOf([SECRET])), "nothing here");
});
