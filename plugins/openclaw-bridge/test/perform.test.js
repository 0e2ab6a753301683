import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { test } from "node:test";
import zlib from "node:zlib";
import { readCall } from "../contract.js";
import { createPerformer } from "../perform.js";
import { callTo, startService } from "../testing/helpers.js";

function performer(t, options) {
  const { perform, close } = createPerformer(options);
  t.after(close);
  return (url, changes) => perform(readCall(callTo(url, changes)));
}

/** A TCP server of which every connection is handled by the test. */
async function startTcp(t, handle) {
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    handle(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return server.address().port;
}

const withCode = (code, reason) => (error) => {
  assert.deepEqual([error.code, error.details.reason], [code, reason], error.stack);
  return true;
};

test("method, path, query, repeated headers and body arrive as given", async (t) => {
  const service = await startService(t);
  const perform = performer(t);
  await perform(`${service.url}/a%20b?c=d`, { request: { method: "PUT", headers: [["X-Two", "1"], ["x-two", "2"], ["Authorization", "Bearer t"]], bodyBase64: Buffer.from("body").toString("base64") } });
  const [seen] = service.requests;
  assert.deepEqual([seen.method, seen.url, seen.body], ["PUT", "/a%20b?c=d", "body"]);
  assert.deepEqual([seen.headers["x-two"], seen.headers.authorization, seen.headers["content-length"]], ["1, 2", "Bearer t", "4"]);
  assert.equal(seen.headers["accept-encoding"], "identity");
  assert.equal(seen.headers.host, `127.0.0.1:${service.port}`);
});

test("a body of no bytes has a length only where the method has a body", async (t) => {
  const service = await startService(t);
  const perform = performer(t);
  await perform(service.url, { request: { method: "POST", bodyBase64: null } });
  await perform(service.url, { request: { method: "GET", bodyBase64: null } });
  assert.deepEqual(service.requests.map(({ headers }) => headers["content-length"]), ["0", undefined]);
});

test("a redirect is an answer and is not followed", async (t) => {
  const service = await startService(t, (_, response) => response.writeHead(302, { location: "/elsewhere" }).end());
  const reply = await performer(t)(service.url);
  assert.equal(reply.status, 302);
  assert.ok(reply.headers.some(([name, value]) => name === "location" && value === "/elsewhere"));
  assert.equal(service.requests.length, 1);
});

test("a reply over the limit is an answer whose body is withheld", async (t) => {
  const service = await startService(t, (_, response) => response.writeHead(201, { "x-kept": "1" }).end("x".repeat(1001)));
  const perform = performer(t);
  const whole = await perform(service.url, { maxResponseBytes: 1001 });
  const cut = await perform(service.url, { maxResponseBytes: 1000 });
  assert.deepEqual([whole.truncated, whole.body.length], [false, 1001]);
  assert.deepEqual([cut.status, cut.truncated, cut.body.length], [201, true, 0]);
  assert.ok(cut.headers.some(([name]) => name === "x-kept"));
});

for (const [coding, encode] of Object.entries({ gzip: zlib.gzipSync, br: zlib.brotliCompressSync, deflate: zlib.deflateSync, zstd: zlib.zstdCompressSync })) {
  test(`a reply that comes in ${coding} unasked is decoded, so that it can be masked`, async (t) => {
    const service = await startService(t, (_, response) => response.writeHead(200, { "content-encoding": coding }).end(encode("plain text")));
    const reply = await performer(t)(service.url);
    assert.equal(reply.body.toString(), "plain text");
    assert.ok(!reply.headers.some(([name]) => name.toLowerCase() === "content-encoding"));
  });
}

test("a reply in an unknown coding, or one that bursts the limit, is withheld", async (t) => {
  const bomb = zlib.gzipSync(Buffer.alloc(10_000_000));
  const service = await startService(t, (request, response) => {
    if (request.url === "/bomb") response.writeHead(200, { "content-encoding": "gzip" }).end(bomb);
    else response.writeHead(200, { "content-encoding": "secret-sauce" }).end("canary");
  });
  const perform = performer(t);
  for (const path of ["/bomb", "/unknown"]) {
    const reply = await perform(service.url + path, { maxResponseBytes: 100_000 });
    assert.deepEqual([reply.status, reply.truncated, reply.body.length], [200, true, 0]);
  }
});

test("connection refused: not sent", async (t) => {
  const port = await startTcp(t, () => {});
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const free = server.address().port;
  server.close();
  await once(server, "close");
  assert.notEqual(free, port);
  await assert.rejects(performer(t)(`http://127.0.0.1:${free}`), withCode("NOT_SENT", "CONNECTION_FAILED"));
});

test("name not found: not sent, and the name resolver is asked for all addresses", async (t) => {
  const asked = [];
  const resolve = (name, options, done) => {
    asked.push([name, options.all]);
    done(Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" }));
  };
  await assert.rejects(performer(t, { resolve })("http://nowhere.example"), (error) => {
    assert.equal(error.details.cause, "ENOTFOUND");
    return withCode("NOT_SENT", "CONNECTION_FAILED")(error);
  });
  assert.deepEqual(asked, [["nowhere.example", true]]);
});

test("TLS that does not come about: not sent, and no byte of the request arrives", async (t) => {
  const received = [];
  const port = await startTcp(t, (socket) => {
    socket.once("data", (data) => {
      received.push(data);
      socket.end("HTTP/1.1 400 this is no TLS\r\n\r\n");
    });
  });
  const headers = [["authorization", "Bearer canary-token"]];
  await assert.rejects(performer(t)(`https://127.0.0.1:${port}`, { request: { headers } }), withCode("NOT_SENT", "CONNECTION_FAILED"));
  assert.ok(!Buffer.concat(received).includes("canary-token"));
});

test("a peer that accepts and never does TLS: not sent after the connect time-out", async (t) => {
  const port = await startTcp(t, () => {});
  await assert.rejects(performer(t, { connectTimeoutMs: 50 })(`https://127.0.0.1:${port}`), withCode("NOT_SENT", "CONNECT_TIMEOUT"));
});

test("no reply in time: outcome unknown", async (t) => {
  const service = await startService(t, () => {});
  await assert.rejects(performer(t)(service.url, { timeoutMs: 100 }), withCode("OUTCOME_UNKNOWN", "RESPONSE_TIMEOUT"));
  assert.equal(service.requests.length, 1);
});

test("a reset after the request: outcome unknown, and the request is not repeated", async (t) => {
  const service = await startService(t, (request) => request.socket.resetAndDestroy());
  await assert.rejects(performer(t)(service.url), withCode("OUTCOME_UNKNOWN", "CONNECTION_FAILED"));
  assert.equal(service.requests.length, 1);
});

test("a reset on a connection that was used before: outcome unknown, and the request is not repeated", async (t) => {
  const service = await startService(t, (request, response) => (request.url === "/first" ? response.end() : request.socket.destroy()));
  const perform = performer(t);
  await perform(`${service.url}/first`);
  await assert.rejects(perform(`${service.url}/second`), withCode("OUTCOME_UNKNOWN", "CONNECTION_FAILED"));
  assert.equal(service.requests.length, 2);
});

test("a body that is cut: outcome unknown, with the status that was seen", async (t) => {
  const service = await startService(t, (_, response) => {
    response.writeHead(201, { "content-length": 100 });
    response.write("half", () => response.socket.destroy());
  });
  await assert.rejects(performer(t)(service.url), (error) => {
    assert.equal(error.details.status, 201);
    return withCode("OUTCOME_UNKNOWN", "REPLY_CUT")(error);
  });
});

test("an answer that is not HTTP: outcome unknown", async (t) => {
  const port = await startTcp(t, (socket) => socket.once("data", () => socket.end("hello\n")));
  await assert.rejects(performer(t)(`http://127.0.0.1:${port}`), withCode("OUTCOME_UNKNOWN", "CONNECTION_FAILED"));
});

test("a private address is refused as a literal, in odd spellings, by name, and nothing arrives", async (t) => {
  const service = await startService(t);
  const resolve = (_, options, done) => done(null, [{ address: "1.1.1.1", family: 4 }, { address: "127.0.0.1", family: 4 }]);
  const perform = performer(t, { resolve });
  for (const host of ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "public-then-private.example"]) {
    const call = perform(`http://${host}:${service.port}/`, { privateNetwork: "refuse" });
    await assert.rejects(call, withCode("NOT_SENT", "PRIVATE_ADDRESS"), host);
  }
  assert.equal(service.requests.length, 0);
});

test("the address that was connected is checked too, also on a connection that is used again", async (t) => {
  const service = await startService(t);
  let answers = 0;
  // As a resolver that lies between two looks: public when the name is resolved, private when connected.
  const isPublic = () => (answers += 1) !== 4;
  const resolve = (_, options, done) => done(null, [{ address: "127.0.0.1", family: 4 }]);
  const perform = performer(t, { resolve, isPublic });
  const url = `http://name.example:${service.port}/`;
  await perform(url, { privateNetwork: "refuse" }); // looks 1 and 2
  await perform(url, { privateNetwork: "refuse" }); // look 3: the connection is kept
  await assert.rejects(perform(url, { privateNetwork: "refuse" }), withCode("NOT_SENT", "PRIVATE_ADDRESS"));
  assert.equal(service.requests.length, 2);
});

test("connections are kept alive, and never shared between callers of different network rules", async (t) => {
  const sockets = [];
  const service = await startService(t, (request, response) => {
    sockets.push(request.socket);
    response.end();
  });
  const perform = performer(t, { isPublic: () => true });
  await perform(service.url, { privateNetwork: "allow" });
  await perform(service.url, { privateNetwork: "allow" });
  await perform(service.url, { privateNetwork: "refuse" });
  assert.equal(sockets[0], sockets[1]);
  assert.notEqual(sockets[1], sockets[2]);
});

test("a proxy that the environment names is not used", async (t) => {
  const service = await startService(t);
  process.env.HTTP_PROXY = process.env.http_proxy = "http://127.0.0.1:1";
  process.env.NODE_USE_ENV_PROXY = "1";
  t.after(() => ["HTTP_PROXY", "http_proxy", "NODE_USE_ENV_PROXY"].forEach((name) => delete process.env[name]));
  assert.equal((await performer(t)(service.url)).status, 200);
});
