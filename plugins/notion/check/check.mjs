// Holds every request against Notion's own Node client in two ways. Its tables of endpoints say which path, query and body
// fields there are, and the client itself, given the same parameters, has to send the same request. And its types say
// which fields are needed and of what kind each is, to the depth of a block: the requests are written as a TypeScript
// file, which is then compiled.

import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";
import { text } from "node:stream/consumers";
import { Client } from "@notionhq/client";
import { TypedLines } from "./services-types.mjs";

const require = createRequire(import.meta.url);
const endpoints = require("@notionhq/client/build/src/api-endpoints.js");
const { name, version } = require("@notionhq/client/package.json");
const BASE = "https://api.notion.com/v1/";
const TOKEN = "recorded";

const requests = JSON.parse(await text(process.stdin));
const found = [];
const lines = new TypedLines('import type * as notion from "@notionhq/client/build/src/api-endpoints";');

for (const request of requests) {
  const operation = operationOf(request);
  if (typeof operation === "string") {
    report(request, operation);
    continue;
  }
  const { key, endpoint, parameters } = operation;
  for (const fault of await differences(request, endpoint, parameters)) report(request, fault);
  const type = `${key[0].toUpperCase()}${key.slice(1)}Parameters`;
  lines.add(`notion.${type}`, parameters, request);
}

for (const [request, message] of lines.faults()) report(request, message);

if (found.length > 0 || requests.length === 0) {
  console.error(found.join("\n") || "notion: no request to check");
  process.exit(1);
}
console.log(`notion: ${requests.length} requests are those of ${name} ${version}`);

function report(request, what) {
  found.push(`notion: ${request.action}, \`${request.example}\`: ${request.method} ${request.url}: ${what}`);
}

/** The endpoint of the client's that a request means, and the parameters that it carries; or what is wrong with it. */
function operationOf(request) {
  if (!request.url.startsWith(BASE)) return `is not below ${BASE}`;
  const url = new URL(request.url);
  const path = request.url.slice(BASE.length).split("?")[0];
  const fits = Object.entries(endpoints).flatMap(([key, endpoint]) => {
    if (endpoint?.method !== request.method.toLowerCase()) return [];
    const names = Object.fromEntries(endpoint.pathParams.map((name) => [name, `(?<${name}>[^/]+)`]));
    const match = new RegExp(`^${endpoint.path(names)}$`).exec(path);
    return match ? [{ key, endpoint, segments: { ...match.groups } }] : [];
  });
  const fit = fits.sort((a, b) => a.endpoint.pathParams.length - b.endpoint.pathParams.length)[0];
  if (!fit) return "there is no such endpoint";
  const body = request.body === "" ? {} : JSON.parse(request.body);
  const query = Object.fromEntries([...url.searchParams].map(([key, value]) => [key, key === "page_size" ? Number(value) : value]));
  const unknown = [
    ...Object.keys(query).filter((key) => !fit.endpoint.queryParams.includes(key)),
    ...Object.keys(body).filter((key) => !fit.endpoint.bodyParams.includes(key)),
  ];
  if (unknown.length > 0) return `the endpoint ${fit.key} does not know ${unknown.join(", ")}`;
  return { key: fit.key, endpoint: fit.endpoint, parameters: { ...fit.segments, ...query, ...body } };
}

/** How the request that the client makes of the same parameters differs. */
async function differences(request, endpoint, parameters) {
  const pick = (names) => Object.fromEntries(names.filter((name) => name in parameters).map((name) => [name, parameters[name]]));
  let sent;
  const fetch = async (url, { method, headers, body }) => {
    sent = { method, url, headers, body };
    return { ok: true, status: 200, headers: new Headers(), text: async () => "{}" };
  };
  const client = new Client({ auth: TOKEN, fetch });
  await client.request({ path: endpoint.path(parameters), method: endpoint.method, query: pick(endpoint.queryParams), body: pick(endpoint.bodyParams) });
  const ours = Object.fromEntries(request.headers.map(([name, value]) => [name.toLowerCase(), value.replace("{token}", TOKEN)]));
  const theirs = Object.fromEntries(Object.entries(sent.headers).map(([name, value]) => [name.toLowerCase(), value]));
  const pairs = {
    method: [request.method, sent.method],
    address: [comparable(request.url), comparable(sent.url)],
    body: [request.body === "" ? undefined : JSON.parse(request.body), sent.body && JSON.parse(sent.body)],
    "media type": [request.content_type?.split(";")[0] ?? undefined, theirs["content-type"]],
    authorization: [ours.authorization, theirs.authorization],
    version: [ours["notion-version"], theirs["notion-version"]],
  };
  return Object.entries(pairs)
    .filter(([, [a, b]]) => !isDeepStrictEqual(a, b))
    .map(([what, [a, b]]) => `${what}: ours ${JSON.stringify(a)}, the client's ${JSON.stringify(b)}`);
}

function comparable(address) {
  const url = new URL(address);
  url.searchParams.sort();
  return url.href;
}
