// One HTTP exchange, with exact knowledge of whether a byte of it left this process.
//
// node:http writes nothing before `end()`. The request is therefore created, its socket awaited until TCP
// and TLS are through and the peer's address is checked; only then `end()` is called. A failure before
// that is `NOT_SENT`, any failure after it is `OUTCOME_UNKNOWN`.
import dns from "node:dns";
import http from "node:http";
import https from "node:https";
import { isIP } from "node:net";
import { promisify } from "node:util";
import zlib from "node:zlib";
import { isPublicAddress } from "./addresses.js";
import { notSent, outcomeUnknown } from "./failure.js";
import * as limits from "./limits.js";

/** Methods whose request carries `content-length: 0` when it has no body (RFC 9110, 8.6). */
const METHODS_WITH_BODY = new Set(["POST", "PUT", "PATCH"]);

const DECODERS = {
  gzip: promisify(zlib.gunzip),
  "x-gzip": promisify(zlib.gunzip),
  deflate: promisify(zlib.inflate),
  br: promisify(zlib.brotliDecompress),
  zstd: promisify(zlib.zstdDecompress),
};

/**
 * `perform(call)` gives `{status, headers, body, truncated}` or throws a `Failure`. Redirects are answers
 * like any other, proxies named in the environment are not used. Connections are kept alive, and those of
 * callers that may reach private addresses are never shared with those that may not.
 */
export function createPerformer({ resolve = dns.lookup, isPublic = isPublicAddress, connectTimeoutMs = limits.CONNECT_TIMEOUT_MS } = {}) {
  const routes = {
    refuse: createRoute({ resolve, isPublic, connectTimeoutMs }),
    allow: createRoute({ resolve, isPublic: () => true, connectTimeoutMs }),
  };
  return {
    perform: async (call) => decoded(await exchange(call, routes[call.privateNetwork]), call.maxResponseBytes),
    close: () => Object.values(routes).forEach((route) => Object.values(route.agents).forEach((agent) => agent.destroy())),
  };
}

function createRoute({ resolve, isPublic, connectTimeoutMs }) {
  const options = { keepAlive: true, timeout: limits.KEEP_ALIVE_IDLE_MS, lookup: guardedLookup(resolve, isPublic) };
  const agents = { "http:": new http.Agent(options), "https:": new https.Agent({ ...options, rejectUnauthorized: true }) };
  return { agents, isPublic, connectTimeoutMs };
}

/** Name resolution that refuses a name as soon as one of its addresses is refused: which of them gets
 *  connected is not ours to choose. */
function guardedLookup(resolve, isPublic) {
  return (hostname, options, done) => {
    resolve(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return done(error);
      if (!addresses.every(({ address }) => isPublic(address))) return done(privateAddress());
      if (options.all) return done(null, addresses);
      return done(null, addresses[0].address, addresses[0].family);
    });
  };
}

function exchange(call, route) {
  return new Promise((resolve, reject) => {
    const { url } = call.request;
    const host = url.hostname.replace(/^\[|\]$/g, "");
    // Node resolves no name for a literal address, so the guard above would not see it.
    if (isIP(host) && !route.isPublic(host)) throw privateAddress();

    const request = openRequest(call.request, host, route);
    let sent = false;
    let status;
    const settle = (finish, value) => {
      clearTimeout(connectTimer);
      clearTimeout(deadlineTimer);
      finish(value);
    };
    const fail = (reason, error) => {
      settle(reject, sent ? unknownAfter(reason, error, status) : notSentBecause(reason, error));
      request.destroy();
    };
    const connectTimer = setTimeout(() => fail("CONNECT_TIMEOUT"), Math.min(route.connectTimeoutMs, call.timeoutMs));
    const deadlineTimer = setTimeout(() => fail(sent ? "RESPONSE_TIMEOUT" : "CONNECT_TIMEOUT"), call.timeoutMs);

    request.on("error", (error) => fail("CONNECTION_FAILED", error));
    request.on("upgrade", () => fail("UNEXPECTED_UPGRADE"));
    request.once("socket", (socket) =>
      whenConnected(socket, () => {
        if (request.destroyed || socket.destroyed) return; // its error event is on the way
        if (!route.isPublic(socket.remoteAddress)) return fail("PRIVATE_ADDRESS", privateAddress());
        clearTimeout(connectTimer);
        sent = true;
        request.end(call.request.body ?? undefined);
      }),
    );
    request.once("response", (response) => {
      status = response.statusCode;
      readReply(response, call.maxResponseBytes).then(
        (reply) => {
          settle(resolve, reply);
          if (reply.truncated) request.destroy();
        },
        (error) => fail("REPLY_CUT", error),
      );
    });
  });
}

function openRequest({ method, url, headers, body }, host, route) {
  const client = url.protocol === "https:" ? https : http;
  const request = client.request({
    method,
    host,
    port: url.port || undefined,
    path: `${url.pathname}${url.search}`,
    agent: route.agents[url.protocol],
    maxHeaderSize: limits.MAX_RESPONSE_HEADER_BYTES,
    insecureHTTPParser: false,
    setDefaultHeaders: false,
  });
  request.setHeader("host", url.host);
  for (const [name, values] of grouped(headers)) request.setHeader(name, values);
  // A compressed reply would hide credentials from the masker.
  request.setHeader("accept-encoding", "identity");
  if (body !== null) request.setHeader("content-length", body.length);
  else if (METHODS_WITH_BODY.has(method)) request.setHeader("content-length", 0);
  return request;
}

/** A header that is given twice is sent twice. */
function grouped(headers) {
  const groups = new Map();
  for (const [name, value] of headers) groups.set(name, groups.has(name) ? [groups.get(name), value].flat() : value);
  return groups;
}

function whenConnected(socket, ready) {
  if (!socket.connecting && !socket.secureConnecting) return ready();
  socket.once(socket.encrypted ? "secureConnect" : "connect", ready);
}

function readReply(response, maxBytes) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    let length = 0;
    const finish = (truncated) =>
      resolve({
        status: response.statusCode,
        headers: pairs(response.rawHeaders),
        // The end of a cut body may be half a credential, which no masker recognizes.
        body: truncated ? Buffer.alloc(0) : Buffer.concat(chunks),
        truncated,
      });
    response.on("data", (chunk) => {
      length += chunk.length;
      if (length > maxBytes) finish(true);
      else chunks.push(chunk);
    });
    response.on("end", () => (response.complete ? finish(false) : reject(new Error("the reply ended early"))));
    response.on("error", reject);
  });
}

function pairs(rawHeaders) {
  return rawHeaders.flatMap((name, index) => (index % 2 === 0 ? [[name, rawHeaders[index + 1]]] : []));
}

/** Undoes a content coding that the service applied unasked. What cannot be undone cannot be masked, so it
 *  is withheld as if it had been too large. */
async function decoded(reply, maxBytes) {
  const codings = headerValues(reply.headers, "content-encoding").filter((coding) => coding !== "identity");
  if (codings.length === 0 || reply.body.length === 0) return reply;
  const headers = reply.headers.filter(([name]) => !["content-encoding", "content-length"].includes(name.toLowerCase()));
  try {
    let body = reply.body;
    for (const coding of codings.reverse()) body = await DECODERS[coding](body, { maxOutputLength: maxBytes });
    return { ...reply, headers, body };
  } catch {
    return { ...reply, headers, body: Buffer.alloc(0), truncated: true };
  }
}

function headerValues(headers, wanted) {
  return headers
    .filter(([name]) => name.toLowerCase() === wanted)
    .flatMap(([, value]) => value.split(","))
    .map((value) => value.trim().toLowerCase())
    .filter((value) => value !== "");
}

function privateAddress() {
  return notSent("PRIVATE_ADDRESS", "The service's address is not on the public internet, and this instance's rules refuse others. Allow private networks for this plugin if that is intended.", { lasting: true });
}

function notSentBecause(reason, error) {
  if (error?.code === "NOT_SENT") return error;
  const cause = error?.code ?? reason;
  return notSent(reason, `The service could not be reached (${cause}), and nothing was sent to it.`, { cause });
}

function unknownAfter(reason, error, status) {
  const cause = error?.code ?? reason;
  const seen = status === undefined ? "before a status arrived" : `after status ${status} arrived`;
  return outcomeUnknown(reason, `The exchange broke off ${seen} (${cause}). Whether the service acted is not known; look there before trying again.`, {
    cause,
    ...(status === undefined ? {} : { status }),
  });
}
