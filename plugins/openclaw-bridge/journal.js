// What this instance did, by call id, on its own disk: the reason why a call that is sent twice acts once.
//
// A call's line `started` is on the disk before the first byte of its request leaves, and its outcome
// before the answer does. A call that was started and has no outcome when a process begins is one whose
// process died: nobody can know what became of it.
//
// The file is append-only. Replies stay on the disk and are read back on demand, so memory holds one
// small entry a call. No line holds a credential: calls are noted by the digest that the control plane
// computed before it put credentials in, and replies come here masked.
import { randomUUID } from "node:crypto";
import { fdatasync, fstatSync, ftruncateSync, writeSync } from "node:fs";
import * as fs from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { decodeFile, decodeLine, encodeLine } from "./journal-lines.js";
import * as limits from "./limits.js";

/** Version 2 notes up to when calls were forgotten; version 1 noted less. */
const FORMAT_VERSION = 2;
const FILE = "journal.log";
const COMPACTED_FILE = "journal.next";
const DAMAGED_FILE = "journal.damaged.log";
const PRIVATE_FOLDER = 0o700;
const PRIVATE_FILE = 0o600;
const COPY_CHUNK_BYTES = 1024 * 1024;
/** A compaction that frees little is not repeated until the file has grown by half. */
const COMPACTION_GROWTH = 1.5;

const syncData = promisify(fdatasync);

/** States of a call. `STARTED` without a running call means that an earlier process died over it. */
export const STARTED = "started";
export const FINISHED = "finished";
export const NOT_SENT = "notSent";
export const UNKNOWN = "unknown";
/** It was not begun when its caller asked what became of it, and now it never will be. */
export const WITHDRAWN = "withdrawn";

export class Journal {
  #directory;
  #now;
  #limits;
  #file;
  #size = 0;
  #compactAtBytes;
  #id;
  /** When the youngest of the calls that were forgotten had begun, in ms since 1970; null where none was. */
  #forgottenUpTo = null;
  /** callId -> { digest, startedAt, state, reason?, line?: {offset, length} }, oldest start first. */
  #entries = new Map();
  #queue = [];
  #working = false;
  #broken = null;
  #closed = false;

  /** Opens the journal in this folder, creating, repairing and compacting it as needed. */
  static async open(directory, { now = Date.now, journalBytes = limits.MAX_JOURNAL_BYTES, entries = limits.MAX_JOURNAL_ENTRIES } = {}) {
    const journal = new Journal();
    journal.#directory = directory;
    journal.#now = now;
    journal.#limits = { journalBytes, entries };
    await fs.mkdir(directory, { recursive: true, mode: PRIVATE_FOLDER });
    await journal.#load().catch(async (error) => {
      await journal.#file?.close();
      throw error;
    });
    return journal;
  }

  /** Random, made once, kept with the entries. Another id means that this is another disk, or a damaged one. */
  get id() {
    return this.#id;
  }

  get entryCount() {
    return this.#entries.size;
  }

  /** Whether a call that is not remembered, and was first sent this long ago, may be one that was forgotten. Where its
   *  caller does not say how long ago, it may. */
  mayHaveForgotten(sentAgoMs) {
    if (this.#forgottenUpTo === null) return false;
    return sentAgoMs === null || this.#now() - sentAgoMs <= this.#forgottenUpTo + limits.AGE_TOLERANCE_MS;
  }

  /** The entry of a call, if it is remembered. */
  find(callId) {
    return this.#entries.get(callId);
  }

  /** Durable when it returns. Must return before anything of the call is sent. */
  async started(callId, digest) {
    const at = this.#now();
    await this.#append({ t: STARTED, callId, digest, at });
  }

  /** Durable when it returns. A reply over the limit is kept as its digest alone. */
  async finished(callId, reply) {
    const kept = Buffer.byteLength(JSON.stringify(reply)) <= limits.MAX_JOURNALED_REPLY_BYTES;
    await this.#append({ t: FINISHED, callId, at: this.#now(), reply: kept ? reply : withoutContent(reply) });
  }

  /** As `finished`, of a reply whose content is itself a secret: only its status and digest are kept. */
  async finishedInSecret(callId, reply) {
    await this.#append({ t: FINISHED, callId, at: this.#now(), reply: withoutContent(reply) });
  }

  async notSent(callId) {
    await this.#append({ t: NOT_SENT, callId, at: this.#now() });
  }

  /** Durable when it returns: a call that was not begun never will be. */
  async withdrawn(callId, digest) {
    await this.#append({ t: WITHDRAWN, callId, digest, at: this.#now() });
  }

  async unknown(callId, reason) {
    await this.#append({ t: UNKNOWN, callId, at: this.#now(), reason });
  }

  /** The reply of a finished call, as far as it was kept: `bodyBase64` is null where it was not. */
  async reply(callId) {
    return this.#exclusively(async () => (await this.#readLine(this.#entries.get(callId).line)).reply);
  }

  /** Accepts nothing more, and closes the file after what is under way. Closing twice is fine. */
  async close() {
    if (this.#closed) return;
    const done = this.#exclusively(() => this.#file.close());
    this.#closed = true;
    await done;
  }

  // ---- writing ----

  /** Resolves when the record is on the disk and in memory. Records of concurrent calls share one sync. */
  #append(record) {
    return this.#enqueue({ record, line: encodeLine(record) });
  }

  /** Runs a task while nothing else touches the file. */
  #exclusively(task) {
    return this.#enqueue({ task });
  }

  #enqueue(item) {
    if (this.#closed) return Promise.reject(new Error("the journal is closed"));
    return new Promise((resolve, reject) => {
      this.#queue.push({ ...item, resolve, reject });
      if (!this.#working) void this.#work();
    });
  }

  async #work() {
    this.#working = true;
    while (this.#queue.length > 0) {
      const items = this.#queue.splice(0);
      await this.#commit(items.filter((item) => item.line));
      for (const item of items.filter((item) => item.task)) await item.task().then(item.resolve, item.reject);
      // A disk too full for a second file can still take lines in the first: try again when it has grown.
      if (this.#isFull()) await this.#compact().catch(() => this.#setNextCompaction());
    }
    this.#working = false;
  }

  async #commit(items) {
    if (items.length === 0) return;
    try {
      if (this.#broken !== null) throw this.#broken;
      const start = this.#size;
      this.#write(Buffer.concat(items.map((item) => item.line)));
      await this.#sync();
      let offset = start;
      for (const { record, line } of items) {
        this.#note(record, { offset, length: line.length - 1 });
        offset += line.length;
      }
      for (const item of items) item.resolve();
    } catch (error) {
      for (const item of items) item.reject(error);
    }
  }

  /** All of it or nothing: a part that stayed behind would run into the next line. */
  #write(bytes) {
    try {
      let written = 0;
      while (written < bytes.length) written += writeSync(this.#file.fd, bytes, written, bytes.length - written, this.#size + written);
      this.#size += bytes.length;
    } catch (error) {
      this.#cutBack();
      throw error;
    }
  }

  #cutBack() {
    try {
      ftruncateSync(this.#file.fd, this.#size);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** After a failed sync the kernel may have dropped the pages, so nothing written later could be trusted. */
  async #sync() {
    await syncData(this.#file.fd).catch((error) => this.#fail(error));
  }

  #fail(error) {
    this.#broken = error;
    throw error;
  }

  /** A record's effect on memory; the same when it is written and when it is read back. */
  #note(record, line) {
    if (record.t === STARTED || record.t === WITHDRAWN) {
      this.#entries.delete(record.callId); // a call that begins again is the youngest again
      this.#entries.set(record.callId, { digest: record.digest, startedAt: record.at, state: record.t });
      return;
    }
    const entry = this.#entries.get(record.callId);
    if (entry === undefined) return;
    this.#entries.set(record.callId, {
      digest: entry.digest,
      startedAt: entry.startedAt,
      state: record.t,
      ...(record.reason === undefined ? {} : { reason: record.reason }),
      ...(record.t === FINISHED ? { line } : {}),
    });
  }

  // ---- reading ----

  async #load() {
    await fs.rm(path.join(this.#directory, COMPACTED_FILE), { force: true });
    this.#file = await fs.open(this.#path(), fs.constants.O_RDWR | fs.constants.O_CREAT, PRIVATE_FILE);
    const { records, damaged, end } = decodeFile(await this.#file.readFile());
    const header = records.find(({ record }) => record.t === "journal")?.record;
    for (const { record, offset, length } of records) this.#note(record, { offset, length });
    this.#forgottenUpTo = this.#forgottenBefore(header);
    this.#size = end;
    this.#id = header?.id;
    // Lines are missing: what is left is kept, but under a new id, so that nobody takes absence for proof.
    if (damaged) await fs.copyFile(this.#path(), path.join(this.#directory, DAMAGED_FILE));
    if (damaged || this.#id === undefined) this.#id = randomUUID();
    await this.#compact();
  }

  /** What the header says of it. Version 1 did not note what it forgot for its age, so all of that age may be. */
  #forgottenBefore(header) {
    if (header === undefined || header.version >= FORMAT_VERSION) return header?.forgottenUpTo ?? null;
    return Math.max(header.forgotAt ?? 0, this.#now() - limits.JOURNAL_RETENTION_MS);
  }

  async #readLine({ offset, length }) {
    const line = Buffer.alloc(length);
    await this.#file.read(line, 0, length, offset);
    const record = decodeLine(line);
    if (record === null) throw new Error("the journal's record of this call cannot be read back");
    return record;
  }

  // ---- compaction ----

  #isFull() {
    return !this.#broken && !this.#closed && (this.#size > this.#compactAtBytes || this.#entries.size > this.#limits.entries);
  }

  #setNextCompaction() {
    this.#compactAtBytes = Math.max(this.#limits.journalBytes, this.#size * COMPACTION_GROWTH);
  }

  /** Writes what is still worth keeping to a new file, and puts that in the old one's place. */
  async #compact() {
    this.#forget();
    const next = await NextFile.create(path.join(this.#directory, COMPACTED_FILE));
    const entries = new Map();
    try {
      await next.add({ t: "journal", version: FORMAT_VERSION, id: this.#id, forgottenUpTo: this.#forgottenUpTo });
      const oldestReplyKept = this.#oldestReplyThatFits();
      let index = 0;
      for (const [callId, entry] of this.#entries) {
        entries.set(callId, await this.#copyEntry(next, callId, entry, index >= oldestReplyKept));
        index += 1;
      }
      await next.flush();
      await next.file.datasync();
      await fs.rename(next.path, this.#path());
      await syncFolder(this.#directory);
    } catch (error) {
      await next.file.close();
      throw error;
    }
    const old = this.#file;
    this.#file = next.file;
    this.#size = fstatSync(next.file.fd).size;
    this.#entries = entries;
    this.#setNextCompaction();
    await old.close();
  }

  /** Drops what is older than the retention; then, a tenth at a time, the oldest of what is too many. */
  #forget() {
    const horizon = this.#now() - limits.JOURNAL_RETENTION_MS;
    for (const [callId, entry] of this.#entries) if (entry.startedAt < horizon) this.#drop(callId, entry);
    if (this.#entries.size <= this.#limits.entries) return;
    const target = Math.floor(this.#limits.entries * 0.9);
    for (const [callId, entry] of this.#entries) {
      if (this.#entries.size <= target) break;
      if (entry.state !== STARTED) this.#drop(callId, entry); // it may be under way
    }
  }

  #drop(callId, { startedAt }) {
    this.#entries.delete(callId);
    this.#forgottenUpTo = Math.max(this.#forgottenUpTo ?? startedAt, startedAt);
  }

  /** The index of the oldest entry whose reply still fits into half of the file's limit. */
  #oldestReplyThatFits() {
    const lengths = [...this.#entries.values()].map((entry) => entry.line?.length ?? 0);
    let room = this.#limits.journalBytes / 2;
    for (let index = lengths.length - 1; index >= 0; index -= 1) {
      room -= lengths[index];
      if (room < 0) return index + 1;
    }
    return 0;
  }

  async #copyEntry(next, callId, entry, keepReply) {
    const { digest, startedAt, state, reason, line } = entry;
    await next.add({ t: state === WITHDRAWN ? WITHDRAWN : STARTED, callId, digest, at: startedAt });
    if (state === STARTED || state === WITHDRAWN) return entry;
    if (state !== FINISHED) {
      await next.add({ t: state, callId, at: startedAt, reason });
      return entry;
    }
    const record = await this.#readLine(line);
    return { ...entry, line: await next.add(keepReply ? record : { ...record, reply: withoutContent(record.reply) }) };
  }

  #path() {
    return path.join(this.#directory, FILE);
  }
}

/** The file that a compaction writes, in large chunks. */
class NextFile {
  #chunks = [];
  #chunkBytes = 0;
  #size = 0;

  static async create(filePath) {
    const next = new NextFile();
    next.path = filePath;
    next.file = await fs.open(filePath, "w+", PRIVATE_FILE);
    return next;
  }

  /** Adds a record and says where its line is. */
  async add(record) {
    const line = encodeLine(record);
    const place = { offset: this.#size, length: line.length - 1 };
    this.#chunks.push(line);
    this.#chunkBytes += line.length;
    this.#size += line.length;
    if (this.#chunkBytes >= COPY_CHUNK_BYTES) await this.flush();
    return place;
  }

  async flush() {
    await this.file.appendFile(Buffer.concat(this.#chunks));
    this.#chunks = [];
    this.#chunkBytes = 0;
  }
}

/** What stays of a reply whose content is too large, too old or too secret to keep. */
function withoutContent({ status, digest, truncated }) {
  return { status, headers: [], bodyBase64: null, truncated, digest };
}

async function syncFolder(directory) {
  const folder = await fs.open(directory, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
