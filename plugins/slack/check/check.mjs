// Holds the arguments of every call against the argument types of Slack's own Node client: each required one is there,
// none is unknown, each is of the right kind. The requests are written as a TypeScript file, which is then compiled.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import ts from "typescript";

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
let source = PRELUDE;
const at = []; // line of the source -> request

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
  const name = `request${at.length}`;
  source += `export const ${name}: ${wrap}<slack.${type}> = ${JSON.stringify(argumentsOf(request, url))};\n`;
  at[source.split("\n").length - 2] = request;
}

for (const diagnostic of compile(source)) {
  const line = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line;
  const message = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ");
  if (at[line] === undefined) found.push(`slack: the check itself: ${message}`);
  else report(at[line], message);
}

if (found.length > 0 || requests.length === 0) {
  console.error(found.join("\n") || "slack: no request to check");
  process.exit(1);
}
console.log(`slack: ${at.filter(Boolean).length} calls have the arguments of ${client.name} ${client.version} (Node)`);

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

/** What the compiler says of the source, which lies beside this file but nowhere on disk. */
function compile(source) {
  const path = new URL("./requests.ts", import.meta.url).pathname;
  const options = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (name, ...rest) => (name === path ? ts.createSourceFile(name, source, options.target) : getSourceFile(name, ...rest));
  host.fileExists = (name) => name === path || fileExists(name);
  host.readFile = (name) => (name === path ? source : readFile(name));
  const program = ts.createProgram([path], options, host);
  return ts.getPreEmitDiagnostics(program, program.getSourceFile(path));
}
