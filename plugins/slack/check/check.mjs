// Holds the arguments of every call against the argument types of Slack's own Node client: each required one is there,
// none is unknown, each is of the right kind. The requests are written as a TypeScript file, which is then compiled.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import { TypedLines } from "./services-types.mjs";

const BASE = "https://slack.com/api/";
const UPLOADS = "https://files.slack.com/";
const require = createRequire(import.meta.url);
const client = JSON.parse(readFileSync(require.resolve("@slack/web-api/package.json"), "utf8"));

// In a query or a form everything is text: a number in digits, a list as JSON.
const PRELUDE = `
import type * as slack from "@slack/web-api";
type Spelt<V> = V extends boolean ? "true" | "false" : V extends number ? \`\${number}\` : V extends string ? V : never;
type Text<A> = A extends unknown ? { [K in keyof A]: A[K] extends infer V ? (V extends object ? V : Spelt<V>) : never } : never;
type OfText<A> = Text<NonNullable<A>>;
type OfJson<A> = NonNullable<A>;
`;

const requests = JSON.parse(await text(process.stdin));
const found = [];
const lines = new TypedLines(PRELUDE);

for (const request of requests) {
  if (request.url.startsWith(UPLOADS)) continue; // bytes, no arguments
  if (!request.url.startsWith(BASE)) {
    report(request, `is not below ${BASE}`);
    continue;
  }
  const url = new URL(request.url);
  const method = url.pathname.split("/").at(-1);
  const type = `${method.split(".").map(capitalised).join("")}Arguments`;
  const wrap = request.content_type?.startsWith("application/json") ? "OfJson" : "OfText";
  lines.add(`${wrap}<slack.${type}>`, argumentsOf(request, url), request);
}

for (const [request, message] of lines.faults()) report(request, message);

if (found.length > 0 || requests.length === 0) {
  console.error(found.join("\n") || "slack: no request to check");
  process.exit(1);
}
console.log(`slack: ${lines.count} calls have the arguments of ${client.name} ${client.version} (Node)`);

function report(request, what) {
  found.push(`slack: ${request.action}, \`${request.example}\`: ${request.method} ${request.url}: ${what}`);
}

function capitalised(word) {
  return word[0].toUpperCase() + word.slice(1);
}

function argumentsOf(request, url) {
  if (request.content_type?.startsWith("application/json")) return JSON.parse(request.body);
  const fields = request.method === "GET" ? url.searchParams : new URLSearchParams(request.body);
  return Object.fromEntries([...fields].map(([name, value]) => [name, value.startsWith("[") ? JSON.parse(value) : value]));
}
