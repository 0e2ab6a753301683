// Holds the arguments of every call against the Bot API's methods as TypeScript types: each required one is there, none
// is unknown, each is of the right kind. The requests are written as a TypeScript file, which is then compiled.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const CALL = /^https:\/\/api\.telegram\.org\/bot\{bot_token\}\/(\w+)$/;
const FILE = /^https:\/\/api\.telegram\.org\/file\/bot\{bot_token\}\/[^?#]+$/;
const PRELUDE = `
import type { Opts } from "@grammyjs/types/methods.js";
type Upload = { readonly upload: unique symbol };
declare const upload: Upload;
type Arguments = Opts<Upload>;
// A method without arguments takes an empty object, to which TypeScript would give anything.
type Of<M extends keyof Arguments> = keyof Arguments[M] extends never ? Record<string, never> : Arguments[M];
`;

const require = createRequire(import.meta.url);
const types = JSON.parse(readFileSync(require.resolve("@grammyjs/types/package.json"), "utf8"));
const requests = JSON.parse(await text(process.stdin));

/** What the request puts into the method's arguments, as an expression. In a form everything but a file is text. */
function argumentsOf(request) {
  if (request.form.length === 0) return JSON.stringify(JSON.parse(request.body));
  const spelt = request.form.map(({ name, file_name, text }) => {
    if (file_name !== null) return `${JSON.stringify(name)}: upload`;
    const isJson = /^([[{]|true$|false$|-?\d+(\.\d+)?$)/.test(text);
    return `${JSON.stringify(name)}: ${isJson ? JSON.stringify(JSON.parse(text)) : JSON.stringify(text)}`;
  });
  return `{ ${spelt.join(", ")} }`;
}

/** What is wrong with how the request is made; the compiler looks at its arguments. */
function problemOf(request) {
  if (request.headers.length > 0) return "the token stands in the path, and nothing in the headers";
  if (FILE.test(request.url)) return request.method === "GET" ? null : "files are fetched by GET";
  if (!CALL.test(request.url)) return "is neither /bot<token>/METHOD nor /file/bot<token>/<file_path>";
  if (request.method !== "POST") return "methods are called by GET or POST; with a body, by POST";
  const isJson = request.content_type?.split(";")[0] === "application/json";
  return isJson || request.form.length > 0 ? null : "arguments go into JSON or a form";
}

/** Messages for each request, in the order of the requests. */
function check(all) {
  const messages = all.map((request) => [problemOf(request)].filter(Boolean));
  const lines = all.map((request, index) => {
    const method = CALL.exec(request.url)?.[1];
    if (method === undefined) return "";
    return `export const request${index}: Of<${JSON.stringify(method)}> = ${argumentsOf(request)};`;
  });
  const first = PRELUDE.split("\n").length - 1;
  for (const diagnostic of compile(PRELUDE + lines.join("\n"))) {
    const message = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ");
    const line = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line ?? -1;
    if (messages[line - first] === undefined) throw new Error(`the check itself does not compile: ${message}`);
    messages[line - first].push(message);
  }
  return messages;
}

function compile(source) {
  const path = join(dirname(fileURLToPath(import.meta.url)), "requests.ts");
  const options = { strict: true, noEmit: true, module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ESNext, types: [] };
  const host = ts.createCompilerHost(options);
  const readFile = host.getSourceFile;
  host.getSourceFile = (name, ...rest) =>
    name === path ? ts.createSourceFile(name, source, options.target) : readFile(name, ...rest);
  return ts.getPreEmitDiagnostics(ts.createProgram([path], options, host));
}

// The check itself: each of these changes must be noticed.
const sample = (action) => structuredClone(requests.find((request) => request.action === action));
const changed = (action, change) => {
  const request = sample(action);
  const body = JSON.parse(request.body);
  change(body);
  return { ...request, body: JSON.stringify(body) };
};
const misfits = [
  changed("send_message", (body) => delete body.text),
  changed("send_message", (body) => (body.parsemode = "HTML")),
  changed("send_message", (body) => (body.parse_mode = "Html")),
  changed("send_message", (body) => (body.reply_parameters = 42)),
  changed("get_me", (body) => (body.x = 1)),
  { ...sample("get_me"), url: "https://api.telegram.org/bot{bot_token}/getMee" },
  { ...sample("get_me"), url: "https://api.telegram.org/getMe" },
  { ...sample("get_me"), method: "PUT" },
  { ...sample("get_me"), content_type: "text/plain" },
  { ...sample("get_me"), headers: [["Authorization", "Bearer x"]] },
  { ...requests.find(({ form }) => form.length > 0), form: [{ name: "chat_id", file_name: null, text: "5" }] },
];
check(misfits).forEach((messages, index) => {
  if (messages.length === 0) throw new Error(`the check lets this pass: ${JSON.stringify(misfits[index])}`);
});

const red = check(requests).flatMap((messages, index) =>
  messages.map((message) => `telegram: ${requests[index].action}, "${requests[index].example}": ${message}`),
);
if (red.length > 0 || requests.length === 0) {
  console.error(red.join("\n") || "telegram: there are no requests");
  process.exit(1);
}
const methods = new Set(requests.map(({ url }) => CALL.exec(url)?.[1]).filter(Boolean));
console.log(`telegram: ${requests.length} requests fit @grammyjs/types ${types.version}, ${methods.size} of its methods`);
