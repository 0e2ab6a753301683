import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { test } from "node:test";
import { Bridge } from "../bridge.js";
import { AGE_TOLERANCE_MS, JOURNAL_RETENTION_MS, MAX_CONCURRENT_CALLS } from "../limits.js";
import { base64, bodyOf, callTo, everythingIn, openBridge, openJournal, startService, temporaryFolder } from "../testing/helpers.js";

const withCode = (code, reason) => (error) => {
  assert.deepEqual([error.code, error.details.reason], [code, reason], error.stack);
  return true;
};

/** A service that answers only when told to. */
async function startHeldService(t) {
  const held = [];
  const waiting = [];
  const service = await startService(t, (_, response) => {
    held.push(response);
    waiting.splice(0).forEach((check) => check());
  });
  const arrived = async (count) => {
    while (held.length < count) await new Promise((resolve) => waiting.push(resolve));
  };
  return { ...service, arrived, release: (text = "{}") => held.forEach((response) => response.end(text)) };
}

test("a finished call that is sent again gets the first answer, without a second request", async (t) => {
  const service = await startService(t, (_, response) => response.end(`answer ${service.requests.length}`));
  const bridge = await openBridge(t, await temporaryFolder(t));
  const call = callTo(service.url);
  const first = await bridge.execute(call);
  const second = await bridge.execute({ ...call, resend: true, journalId: first.journalId });
  assert.deepEqual([first.replayed, second.replayed], [false, true]);
  assert.equal(bodyOf(second), "answer 1");
  assert.deepEqual(second.reply, first.reply);
  assert.equal(service.requests.length, 1);
});

test("the same after the process was killed and another one began", async (t) => {
  const service = await startService(t, (_, response) => response.end(`answer ${service.requests.length}`));
  const folder = await temporaryFolder(t);
  const call = callTo(service.url);
  const first = await (await openBridge(t, folder)).execute(call);
  const second = await (await openBridge(t, folder)).execute({ ...call, resend: true, journalId: first.journalId });
  assert.deepEqual([second.replayed, second.reply], [true, first.reply]);
  assert.equal(service.requests.length, 1);
});

test("a call that is sent again while it runs gets the answer of the one that runs", async (t) => {
  const service = await startHeldService(t);
  const bridge = await openBridge(t, await temporaryFolder(t));
  const call = callTo(service.url);
  const both = Promise.all([bridge.execute(call), bridge.execute({ ...call, resend: true })]);
  await service.arrived(1);
  assert.equal(bridge.status().inFlight, 1);
  service.release("once");
  const [first, second] = await both;
  assert.deepEqual([first.replayed, second.replayed, bodyOf(second)], [false, true, "once"]);
  assert.equal(service.requests.length, 1);
});

test("a process that dies over a call leaves its outcome unknown; only retryUnknown performs it again", async (t) => {
  const service = await startHeldService(t);
  const folder = await temporaryFolder(t);
  const call = callTo(service.url);
  const before = Date.now();
  const lost = (await openBridge(t, folder)).execute(call);
  await service.arrived(1);

  const next = await openBridge(t, folder);
  for (const again of [call, { ...call, resend: true, journalId: next.status().journalId }]) {
    await assert.rejects(next.execute(again), (error) => {
      assert.ok(error.details.startedAt >= before && error.details.startedAt <= Date.now());
      return withCode("OUTCOME_UNKNOWN", "PROCESS_DIED")(error);
    });
  }
  assert.equal(service.requests.length, 1);

  const retried = next.execute({ ...call, resend: true, retryUnknown: true });
  await service.arrived(2);
  service.release();
  assert.equal((await retried).replayed, false);
  await lost;
});

test("an exchange that broke off stays unknown, in this process and in the next", async (t) => {
  const service = await startService(t, (request) => request.socket.destroy());
  const folder = await temporaryFolder(t);
  const call = callTo(service.url);
  const bridge = await openBridge(t, folder);
  await assert.rejects(bridge.execute(call), withCode("OUTCOME_UNKNOWN", "CONNECTION_FAILED"));
  await assert.rejects(bridge.execute(call), withCode("OUTCOME_UNKNOWN", "CONNECTION_FAILED"));
  await assert.rejects((await openBridge(t, folder)).execute(call), withCode("OUTCOME_UNKNOWN", "CONNECTION_FAILED"));
  assert.equal(service.requests.length, 1);
});

test("a call of which nothing was sent may be performed under the same id", async (t) => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  const folder = await temporaryFolder(t);
  const call = callTo(`http://127.0.0.1:${port}/`);
  await assert.rejects((await openBridge(t, folder)).execute(call), withCode("NOT_SENT", "CONNECTION_FAILED"));

  const service = await startService(t);
  const performer = { resolve: (_, __, done) => done(null, [{ address: "127.0.0.1", family: 4 }]) };
  const url = `http://name.example:${service.port}/`;
  const next = await openBridge(t, folder, { performer });
  const answer = await next.execute({ ...call, resend: true, request: { ...call.request, url } });
  assert.equal(answer.reply.status, 200);
});

test("a call id of another request is refused: while it runs, and when it is finished", async (t) => {
  const service = await startHeldService(t);
  const bridge = await openBridge(t, await temporaryFolder(t));
  const call = callTo(service.url);
  const other = { ...call, digest: "sha256:other" };
  const running = bridge.execute(call);
  await assert.rejects(bridge.execute(other), withCode("CALL_ID_REUSED", undefined));
  await service.arrived(1);
  service.release();
  await running;
  await assert.rejects(bridge.execute(other), withCode("CALL_ID_REUSED", undefined));
  assert.equal(service.requests.length, 1);
});

test("a call that is sent again to an instance whose journal is gone has an unknown outcome", async (t) => {
  const service = await startService(t);
  const call = callTo(service.url);
  const { journalId } = await (await openBridge(t, await temporaryFolder(t))).execute(call);
  const fresh = await openBridge(t, await temporaryFolder(t));
  await assert.rejects(fresh.execute({ ...call, resend: true, journalId }), withCode("OUTCOME_UNKNOWN", "JOURNAL_LOST"));
  assert.equal(service.requests.length, 1);
});

test("a call that is sent again and may have been forgotten has an unknown outcome", async (t) => {
  const service = await startService(t);
  const bridge = await openBridge(t, await temporaryFolder(t), { journal: { entries: 10 } });
  const forgotten = callTo(service.url);
  await bridge.execute(forgotten);
  for (let index = 0; index < 12; index += 1) await bridge.execute(callTo(service.url));
  await assert.rejects(bridge.execute({ ...forgotten, resend: true, journalId: bridge.status().journalId }), withCode("OUTCOME_UNKNOWN", "FORGOTTEN"));
  assert.equal(service.requests.length, 13);
});

test("a call that is sent again after its retention has an unknown outcome, and a younger one is performed", async (t) => {
  const service = await startService(t);
  const folder = await temporaryFolder(t);
  const begun = 1_800_000_000_000;
  const old = callTo(service.url);
  const first = await openBridge(t, folder, { journal: { now: () => begun } });
  const { journalId } = await first.execute(old);

  const later = begun + JOURNAL_RETENTION_MS + 1;
  const next = await openBridge(t, folder, { journal: { now: () => later } }); // forgets it
  const resend = { resend: true, journalId, sentAgoMs: later - begun };
  await assert.rejects(next.execute({ ...old, ...resend }), withCode("OUTCOME_UNKNOWN", "FORGOTTEN"));
  await assert.rejects(next.recall(recallOf(old, { journalId, sentAgoMs: later - begun })), withCode("OUTCOME_UNKNOWN", "FORGOTTEN"));
  await assert.rejects(next.execute({ ...old, ...resend, sentAgoMs: undefined }), withCode("OUTCOME_UNKNOWN", "FORGOTTEN"));
  assert.equal(service.requests.length, 1);

  const young = { ...resend, sentAgoMs: later - begun - AGE_TOLERANCE_MS - 1 };
  assert.equal((await next.execute(callTo(service.url, young))).replayed, false);
  assert.equal(service.requests.length, 2);
});

const recallOf = ({ callId, digest }, changes = {}) => ({ callId, digest, journalId: null, sentAgoMs: 1, ...changes });

test("a call is recalled: finished, under way, and begun by a process that died", async (t) => {
  const service = await startHeldService(t);
  const folder = await temporaryFolder(t);
  const bridge = await openBridge(t, folder);
  const call = callTo(service.url);
  const running = bridge.execute(call);
  const [recalled] = await Promise.all([bridge.recall(recallOf(call)), service.arrived(1).then(() => service.release("once"))]);
  assert.deepEqual([recalled.replayed, recalled.reply], [true, (await running).reply]);
  assert.deepEqual((await bridge.recall(recallOf(call))).reply, recalled.reply);
  await assert.rejects(bridge.recall(recallOf(call, { digest: "sha256:other" })), withCode("CALL_ID_REUSED", undefined));

  const lost = callTo(service.url);
  const losing = bridge.execute(lost);
  await service.arrived(2);
  const next = await openBridge(t, folder);
  await assert.rejects(next.recall(recallOf(lost)), withCode("OUTCOME_UNKNOWN", "PROCESS_DIED"));
  assert.equal(service.requests.length, 2);
  service.release();
  await losing;
});

test("a call that was recalled before it was begun is never sent: at once, later, and after a restart", async (t) => {
  const service = await startService(t);
  const folder = await temporaryFolder(t);
  const bridge = await openBridge(t, folder);
  const call = callTo(service.url);
  const recalled = bridge.recall(recallOf(call));
  const meanwhile = bridge.execute(call);
  await assert.rejects(recalled, withCode("NOT_SENT", "WITHDRAWN"));
  await assert.rejects(meanwhile, withCode("NOT_SENT", "WITHDRAWN"));
  for (const again of [bridge, await openBridge(t, folder), await openBridge(t, folder)]) {
    for (const sent of [call, { ...call, resend: true }, { ...call, retryUnknown: true }]) {
      await assert.rejects(again.execute(sent), withCode("NOT_SENT", "WITHDRAWN"));
    }
    await assert.rejects(again.recall(recallOf(call)), withCode("NOT_SENT", "WITHDRAWN"));
  }
  assert.equal(service.requests.length, 0);
});

test("a call whose journal is another one cannot be recalled", async (t) => {
  const bridge = await openBridge(t, await temporaryFolder(t));
  const recall = bridge.recall(recallOf(callTo("http://127.0.0.1:1"), { journalId: "another" }));
  await assert.rejects(recall, withCode("OUTCOME_UNKNOWN", "JOURNAL_LOST"));
});

test("calls beyond the limit are told to come back, those within it go on", async (t) => {
  const service = await startHeldService(t);
  const bridge = await openBridge(t, await temporaryFolder(t));
  const running = Array.from({ length: MAX_CONCURRENT_CALLS }, () => bridge.execute(callTo(service.url)));
  await assert.rejects(bridge.execute(callTo(service.url)), (error) => {
    const { code, retryable, retryAfterMs, details } = error.toGatewayError();
    assert.deepEqual([code, retryable, typeof retryAfterMs, details.code], ["UNAVAILABLE", true, "number", "UNAVAILABLE"]);
    return true;
  });
  await service.arrived(MAX_CONCURRENT_CALLS);
  service.release();
  assert.equal((await Promise.all(running)).length, MAX_CONCURRENT_CALLS);
  assert.equal(bridge.status().inFlight, 0);
});

test("no credential and no cookie comes back or reaches the disk, in whatever the service echoes", async (t) => {
  const secret = "canary/té+st-token";
  const service = await startService(t, (request, response, { body }) => {
    response.setHeader("x-echo", request.headers.authorization);
    response.setHeader("set-cookie", "session=fresh-credential");
    response.end(Buffer.from(JSON.stringify({ body, basic: base64(`user:${secret}`), url: encodeURIComponent(secret) })));
  });
  const folder = await temporaryFolder(t);
  const bridge = await openBridge(t, folder);
  const call = callTo(service.url, {
    secrets: [secret],
    request: { headers: [["authorization", `Bearer ${Buffer.from(secret).toString("latin1")}`]], bodyBase64: base64(JSON.stringify({ token: secret })) },
  });
  const answer = await bridge.execute(call);
  assert.equal(JSON.parse(service.requests[0].body).token, secret);

  const headers = Object.fromEntries(answer.reply.headers);
  assert.equal(headers["x-echo"], "Bearer [redacted]");
  assert.equal(headers["set-cookie"], "[redacted]");
  const echoed = JSON.parse(bodyOf(answer));
  assert.deepEqual([echoed.body, echoed.url], ['{"token":"[redacted]"}', "[redacted]"]);
  const disk = await everythingIn(folder);
  for (const trace of ["canary", base64(secret), "fresh-credential", call.request.bodyBase64]) assert.ok(!disk.includes(trace), trace);
  assert.ok(disk.includes(call.callId));
});

test("a reply that is itself a secret is answered whole and kept as its digest", async (t) => {
  const service = await startService(t, (_, response) => response.end("new-access-token"));
  const folder = await temporaryFolder(t);
  const bridge = await openBridge(t, folder);
  const call = callTo(service.url, { journalReply: false });
  const first = await bridge.execute(call);
  const again = await bridge.execute(call);
  assert.equal(bodyOf(first), "new-access-token");
  assert.deepEqual([again.reply.bodyBase64, again.reply.digest, again.reply.status], [null, first.reply.digest, 200]);
  assert.ok(!(await everythingIn(folder)).includes(base64("new-access-token")));
});

test("a reply over the limit counts as carried out", async (t) => {
  const service = await startService(t, (_, response) => response.end("too long"));
  const bridge = await openBridge(t, await temporaryFolder(t));
  const call = callTo(service.url, { maxResponseBytes: 3 });
  const first = await bridge.execute(call);
  assert.deepEqual([first.reply.status, first.reply.truncated], [200, true]);
  assert.equal((await bridge.execute(call)).replayed, true);
  assert.equal(service.requests.length, 1);
});

test("without a journal nothing is sent", async (t) => {
  const service = await startService(t);
  const journal = await openJournal(t, await temporaryFolder(t));
  await journal.close();
  const bridge = new Bridge({ journal, perform: () => assert.fail("must not perform"), identity: {} });
  await assert.rejects(bridge.execute(callTo(service.url)), withCode("NOT_SENT", "JOURNAL_UNAVAILABLE"));
  await assert.rejects(bridge.recall(recallOf(callTo(service.url))), withCode("UNAVAILABLE", undefined));
  assert.equal(bridge.status().inFlight, 0);
});
