import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { mkdtemp, readFile, readdir } from "node:fs/promises";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { Bridge } from "../bridge.js";
import { Journal } from "../journal.js";
import { createPerformer } from "../perform.js";

/** A service on loopback that notes every request that arrived and answers as the test says. */
export async function startService(t, answer = (request, response) => response.end("{}")) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    const seen = { method: request.method, url: request.url, headers: request.headers, rawHeaders: request.rawHeaders };
    requests.push(seen);
    for await (const chunk of request) chunks.push(chunk);
    seen.body = Buffer.concat(chunks).toString();
    answer(request, response, seen);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, port: server.address().port, requests, server };
}

/** A folder until the process ends: what a test closes after itself may still write into it. */
export async function temporaryFolder() {
  const folder = await mkdtemp(path.join(os.tmpdir(), "bridge-"));
  folders.push(folder);
  return folder;
}

const folders = [];
process.once("exit", () => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A journal that is closed after the test. Opening another one on the same folder is what a restart is. */
export async function openJournal(t, folder, options) {
  const journal = await Journal.open(folder, options);
  t.after(() => journal.close());
  return journal;
}

/** A bridge over a folder. Opening another one on the same folder is what a restart after kill -9 is. */
export async function openBridge(t, folder, { journal = {}, performer = {} } = {}) {
  const opened = await openJournal(t, folder, journal);
  const { perform, close } = createPerformer(performer);
  t.after(close);
  return new Bridge({ journal: opened, perform, identity: { bridgeVersion: "0.0.0", bootId: randomUUID() } });
}

export function callTo(url, changes = {}) {
  const { request, ...rest } = changes;
  return {
    callId: randomUUID(),
    resend: false,
    journalId: null,
    digest: digestOf(url),
    timeoutMs: 5000,
    secrets: [],
    privateNetwork: "allow",
    request: { method: "POST", url, headers: [["content-type", "application/json"]], bodyBase64: base64("{}"), ...request },
    ...rest,
  };
}

export const base64 = (text) => Buffer.from(text).toString("base64");
export const bodyOf = ({ reply }) => Buffer.from(reply.bodyBase64, "base64").toString();
export const digestOf = (text) => `sha256:${createHash("sha256").update(text).digest("hex")}`;

/** All bytes of all files of a folder, to search. */
export async function everythingIn(folder) {
  const files = await readdir(folder, { recursive: true, withFileTypes: true });
  const contents = files.filter((file) => file.isFile()).map((file) => readFile(path.join(file.parentPath, file.name)));
  return Buffer.concat(await Promise.all(contents)).toString("latin1");
}
