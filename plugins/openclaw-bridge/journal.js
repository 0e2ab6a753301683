// What was started and what it came to, on the instance's disk.
//
// One line of JSON an event, appended. An append is durable when its promise resolves; appends that come while the
// disk is busy share the next fdatasync. A line cut short by a kill is dropped when the journal is opened.

import { createHash, randomUUID } from "node:crypto";
import { closeSync, existsSync, fdatasync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, readSync, renameSync, statSync, write, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { JOURNAL_COMPACT_BYTES, JOURNAL_RETENTION_MS, JOURNALED_REPLY_BYTES_MAX } from "./limits.js";

const writeFile = promisify(write);
const sync = promisify(fdatasync);

export const digestOf = (text) => createHash("sha256").update(text).digest("hex");

export class Journal {
  /** Opens the journal in `dir`, making it where there is none. */
  static open(dir, now = Date.now) {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const idPath = join(dir, "journal-id");
    if (!existsSync(idPath)) writeDurably(dir, idPath, randomUUID());
    return new Journal(dir, readFileSync(idPath, "utf8").trim(), now);
  }

  constructor(dir, id, now) {
    this.id = id;
    this.bootId = randomUUID();
    this.now = now;
    this.path = join(dir, "calls.jsonl");
    this.entries = new Map();
    this.queue = [];
    this.flushing = false;
    this.#read();
    if (this.size > JOURNAL_COMPACT_BYTES) this.#compact(dir);
    this.fd = openSync(this.path, "a+", 0o600);
    ftruncateSync(this.fd, this.size);
  }

  /** What is known of a call: { digest, state, at, place? }, or undefined. */
  get(callId) {
    return this.entries.get(callId);
  }

  started(callId, digest) {
    return this.#append({ callId, event: "started", digest, boot: this.bootId, at: this.now() });
  }

  /** `reply` is masked already. */
  finished(callId, digest, reply) {
    const text = JSON.stringify(reply);
    const kept = text.length <= JOURNALED_REPLY_BYTES_MAX;
    return this.#append({ callId, event: "finished", digest, at: this.now(), replyDigest: digestOf(text), ...(kept ? { reply } : {}) });
  }

  /** Nothing left: the same call may be performed as if it had never come. */
  notSent(callId, digest) {
    return this.#append({ callId, event: "not_sent", digest, at: this.now() });
  }

  unknown(callId, digest, reason) {
    return this.#append({ callId, event: "unknown", digest, at: this.now(), reason });
  }

  /** The first answer of a finished call; undefined where it was too large to keep. */
  replyOf(callId) {
    const { place } = this.entries.get(callId);
    const bytes = Buffer.alloc(place.length);
    readSync(this.fd, bytes, 0, place.length, place.offset);
    return JSON.parse(bytes).reply;
  }

  close() {
    closeSync(this.fd);
  }

  #append(line) {
    return new Promise((resolve, reject) => {
      this.queue.push({ line, resolve, reject });
      if (!this.flushing) this.#flush();
    });
  }

  async #flush() {
    this.flushing = true;
    while (this.queue.length > 0) {
      const batch = this.queue.splice(0);
      try {
        const texts = batch.map(({ line }) => Buffer.from(`${JSON.stringify(line)}\n`));
        const bytes = Buffer.concat(texts);
        for (let written = 0; written < bytes.length; ) {
          written += await writeFile(this.fd, bytes, written, bytes.length - written, null);
        }
        await sync(this.fd);
        for (const [i, { line, resolve }] of batch.entries()) {
          this.#note(line, { offset: this.size, length: texts[i].length });
          this.size += texts[i].length;
          resolve();
        }
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.flushing = false;
  }

  #note(line, place) {
    const { callId, event, digest, at, boot, reason } = line;
    this.entries.set(callId, { digest, state: event, at, boot, reason, place });
  }

  #read() {
    this.size = 0;
    if (!existsSync(this.path)) return;
    const bytes = readFileSync(this.path);
    while (this.size < bytes.length) {
      const end = bytes.indexOf(10, this.size);
      if (end < 0) return;
      let line;
      try {
        line = JSON.parse(bytes.subarray(this.size, end));
      } catch {
        return;
      }
      const length = end + 1 - this.size;
      if (line.at > this.now() - JOURNAL_RETENTION_MS) this.#note(line, { offset: this.size, length });
      this.size += length;
    }
  }

  /** Keeps the last line of each call that is not too old. */
  #compact(dir) {
    const bytes = readFileSync(this.path);
    const lines = [...this.entries.values()].map(({ place }) => bytes.subarray(place.offset, place.offset + place.length));
    writeDurably(dir, this.path, Buffer.concat(lines));
    this.entries.clear();
    this.#read();
  }
}

function writeDurably(dir, path, content) {
  writeFileSync(`${path}.new`, content, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
  const fd = openSync(dir, "r");
  fsyncSync(fd);
  closeSync(fd);
}

export const journalBytes = (journal) => statSync(journal.path).size;
