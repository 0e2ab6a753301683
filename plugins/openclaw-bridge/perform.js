// One HTTP request, with the one thing that matters known exactly: whether a byte of it may have left.

import dns from "node:dns";
import http from "node:http";
import https from "node:https";
import { BlockList, isIP } from "node:net";
import zlib from "node:zlib";

/** Ended before anything was sent: performing the request later is the first time. */
export class NotSent extends Error {}
/** Ended after something may have been sent: whether it took effect cannot be known from here. */
export class OutcomeUnknown extends Error {}

const blocked = new BlockList();
for (const [net, bits] of [["0.0.0.0", 8], ["10.0.0.0", 8], ["100.64.0.0", 10], ["127.0.0.0", 8], ["169.254.0.0", 16], ["172.16.0.0", 12], ["192.0.0.0", 24], ["192.168.0.0", 16], ["198.18.0.0", 15], ["224.0.0.0", 4], ["240.0.0.0", 4]]) {
  blocked.addSubnet(net, bits, "ipv4");
}
for (const [net, bits] of [["::", 128], ["::1", 128], ["64:ff9b::", 96], ["fc00::", 7], ["fe80::", 10], ["ff00::", 8]]) {
  blocked.addSubnet(net, bits, "ipv6");
}

/** Whether an address is this machine's, a private network's, or otherwise not the public internet's. */
export function isPrivate(address) {
  // Of an IPv4 address mapped into IPv6 it is the IPv4 address that counts; BlockList sees through that itself.
  return blocked.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}

function guardedLookup(hostname, options, done) {
  dns.lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return done(error);
    const refused = addresses.find(({ address }) => isPrivate(address));
    if (refused) return done(new NotSent(`${hostname} resolves to ${refused.address}, which is on a private network`));
    if (options.all) return done(null, addresses);
    return done(null, addresses[0].address, addresses[0].family);
  });
}

// Sockets to the public internet and to the private network are never shared.
const agentOptions = { keepAlive: true, maxSockets: 32, maxFreeSockets: 8, timeout: 60_000 };
const agents = {
  refuse: { "http:": new http.Agent({ ...agentOptions, lookup: guardedLookup }), "https:": new https.Agent({ ...agentOptions, lookup: guardedLookup }) },
  allow: { "http:": new http.Agent(agentOptions), "https:": new https.Agent(agentOptions) },
};

/**
 * Performs `request` ({ method, url, headers: [[name, value]], body: Buffer|null }).
 * Resolves to { status, headers, body, truncated }; rejects with NotSent or OutcomeUnknown.
 */
export function perform(request, { timeoutMs, maxResponseBytes, privateNetwork }) {
  const url = parseUrl(request.url);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (privateNetwork !== "allow" && isIP(host) && isPrivate(host)) {
    throw new NotSent(`${host} is on a private network`);
  }
  return new Promise((resolve, reject) => {
    let sent = false;
    const fail = (error) => {
      clearTimeout(timer);
      reject(error instanceof NotSent || !sent ? new NotSent(describe(error)) : new OutcomeUnknown(describe(error)));
    };
    const options = {
      method: request.method,
      headers: headersOf(request),
      agent: agents[privateNetwork === "allow" ? "allow" : "refuse"][url.protocol],
    };
    const out = (url.protocol === "https:" ? https : http).request(url, options);
    const timer = setTimeout(() => out.destroy(new Error(`no reply within ${timeoutMs} ms`)), timeoutMs);
    out.on("socket", (socket) => {
      // A socket that was open before takes the bytes at once.
      if (!socket.connecting && (url.protocol === "http:" || socket.secureConnecting === false)) sent = true;
      socket.once(url.protocol === "https:" ? "secureConnect" : "connect", () => (sent = true));
    });
    out.on("error", fail);
    out.on("response", (response) => {
      collect(response, maxResponseBytes).then((reply) => {
        clearTimeout(timer);
        resolve(reply);
      }, fail);
    });
    out.end(request.body ?? undefined);
  });
}

function parseUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    throw new NotSent("the URL is not one");
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") throw new NotSent(`the scheme ${url.protocol} is not HTTP`);
  if (url.username || url.password) throw new NotSent("the URL holds user info");
  return url;
}

function headersOf(request) {
  const headers = { "accept-encoding": "identity" };
  for (const [name, value] of request.headers ?? []) headers[name.toLowerCase()] = value;
  if (request.body) headers["content-length"] = request.body.length;
  return headers;
}

async function collect(response, max) {
  const chunks = [];
  let size = 0;
  let truncated = false;
  for await (const chunk of response) {
    chunks.push(chunk.subarray(0, max - size));
    size += chunk.length;
    if (size > max) {
      truncated = true;
      break;
    }
  }
  const headers = [];
  for (let i = 0; i < response.rawHeaders.length; i += 2) headers.push([response.rawHeaders[i], response.rawHeaders[i + 1]]);
  return decoded({ status: response.statusCode, headers, body: Buffer.concat(chunks), truncated }, max);
}

/** A compressed body would hide a credential from the mask. */
function decoded(reply, max) {
  const encoding = reply.headers.find(([name]) => name.toLowerCase() === "content-encoding")?.[1]?.trim().toLowerCase();
  const unpack = { gzip: zlib.gunzipSync, deflate: zlib.inflateSync, br: zlib.brotliDecompressSync }[encoding];
  if (!encoding || encoding === "identity") return reply;
  const headers = reply.headers.filter(([name]) => name.toLowerCase() !== "content-encoding");
  try {
    if (!unpack || reply.truncated) throw new Error("cannot be unpacked");
    return { ...reply, headers, body: unpack(reply.body, { maxOutputLength: max }) };
  } catch {
    return { ...reply, headers, body: Buffer.alloc(0), truncated: true };
  }
}

const describe = (error) => (error.code && !error.message.includes(error.code) ? `${error.code}: ${error.message}` : error.message);
