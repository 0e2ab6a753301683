import assert from "node:assert/strict";
import { appendFile, readFile, readdir, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { FINISHED, NOT_SENT, STARTED, UNKNOWN } from "../journal.js";
import { encodeLine } from "../journal-lines.js";
import * as limits from "../limits.js";
import { openJournal, temporaryFolder } from "../testing/helpers.js";

const REPLY = { status: 200, headers: [["a", "b"]], bodyBase64: "e30=", truncated: false, digest: "sha256:aa" };
const fileOf = (folder) => path.join(folder, "journal.log");

test("what was noted is there after a restart, under the same journal id", async (t) => {
  const folder = await temporaryFolder(t);
  const first = await openJournal(t, folder);
  for (const id of ["a", "b", "c", "d"]) await first.started(id, `digest-${id}`);
  await first.finished("a", REPLY);
  await first.notSent("b");
  await first.unknown("c", "RESET");

  const second = await openJournal(t, folder);
  assert.equal(second.id, first.id);
  assert.deepEqual(["a", "b", "c", "d"].map((id) => second.find(id).state), [FINISHED, NOT_SENT, UNKNOWN, STARTED]);
  assert.equal(second.find("c").reason, "RESET");
  assert.equal(second.find("d").digest, "digest-d");
  assert.deepEqual(await second.reply("a"), REPLY);
});

test("records of concurrent calls are all kept", async (t) => {
  const folder = await temporaryFolder(t);
  const journal = await openJournal(t, folder);
  const ids = Array.from({ length: 500 }, (_, index) => `call-${index}`);
  await Promise.all(ids.map(async (id) => {
    await journal.started(id, "d");
    await journal.finished(id, { ...REPLY, digest: id });
  }));
  const again = await openJournal(t, folder);
  const replies = await Promise.all(ids.map((id) => again.reply(id)));
  assert.deepEqual(replies.map(({ digest }) => digest), ids);
});

test("the file and its folder are nobody else's to read", async (t) => {
  const folder = path.join(await temporaryFolder(t), "journal");
  await openJournal(t, folder);
  assert.equal((await stat(folder)).mode & 0o777, 0o700);
  assert.equal((await stat(fileOf(folder))).mode & 0o777, 0o600);
});

test("a last line that a crash cut short is dropped, and the next line does not run into it", async (t) => {
  const folder = await temporaryFolder(t);
  const first = await openJournal(t, folder);
  await first.started("whole", "d");
  const whole = await readFile(fileOf(folder));
  await first.started("torn", "d");
  const both = await readFile(fileOf(folder));
  for (let length = whole.length + 1; length < both.length; length += 1) {
    await writeFile(fileOf(folder), both.subarray(0, length));
    const repaired = await openJournal(t, folder);
    assert.equal(repaired.id, first.id);
    assert.equal(repaired.find("torn"), undefined);
    await repaired.started("next", "d");
    const again = await openJournal(t, folder);
    assert.deepEqual(["whole", "next"].map((id) => again.find(id)?.state), [STARTED, STARTED]);
    assert.equal(again.id, first.id);
  }
});

test("a damaged line changes the journal's id, keeps the other lines and the damaged file", async (t) => {
  const folder = await temporaryFolder(t);
  const first = await openJournal(t, folder);
  await first.started("a", "d");
  await first.started("b", "d");
  const bytes = await readFile(fileOf(folder));
  bytes[bytes.indexOf('"a"') + 1] = "z".charCodeAt(0);
  await writeFile(fileOf(folder), bytes);

  const second = await openJournal(t, folder);
  assert.notEqual(second.id, first.id);
  assert.equal(second.find("a"), undefined);
  assert.equal(second.find("b").state, STARTED);
  assert.deepEqual(await readFile(path.join(folder, "journal.damaged.log")), bytes);
  assert.equal((await openJournal(t, folder)).id, second.id);
});

test("a compaction that a crash cut short is ignored", async (t) => {
  const folder = await temporaryFolder(t);
  const first = await openJournal(t, folder);
  await first.started("a", "d");
  await appendFile(path.join(folder, "journal.next"), "half a file");
  const second = await openJournal(t, folder);
  assert.equal(second.find("a").state, STARTED);
  assert.deepEqual((await readdir(folder)).sort(), ["journal.log"]);
});

test("a reply over the limit is kept as its digest", async (t) => {
  const journal = await openJournal(t, await temporaryFolder(t));
  await journal.started("a", "d");
  await journal.finished("a", { ...REPLY, bodyBase64: "A".repeat(limits.MAX_JOURNALED_REPLY_BYTES) });
  assert.deepEqual(await journal.reply("a"), { ...REPLY, headers: [], bodyBase64: null });
});

test("a full file is compacted while it is in use: oldest replies give way, no call does", async (t) => {
  const folder = await temporaryFolder(t);
  const journal = await openJournal(t, folder, { journalBytes: 100_000 });
  const body = "A".repeat(4000);
  for (let index = 0; index < 100; index += 1) {
    await journal.started(`call-${index}`, "d");
    await journal.finished(`call-${index}`, { ...REPLY, bodyBase64: body });
  }
  assert.ok((await stat(fileOf(folder))).size < 150_000);
  assert.equal(journal.entryCount, 100);
  assert.equal((await journal.reply("call-0")).bodyBase64, null);
  assert.equal((await journal.reply("call-0")).digest, REPLY.digest);
  assert.equal((await journal.reply("call-99")).bodyBase64, body);
  assert.deepEqual((await openJournal(t, folder)).id, journal.id);
});

test("calls beyond the retention are forgotten", async (t) => {
  const folder = await temporaryFolder(t);
  const at = 1_800_000_000_000;
  const first = await openJournal(t, folder, { now: () => at });
  await first.started("old", "d");
  const justBefore = await openJournal(t, folder, { now: () => at + limits.JOURNAL_RETENTION_MS });
  assert.equal(justBefore.find("old").state, STARTED);
  const after = await openJournal(t, folder, { now: () => at + limits.JOURNAL_RETENTION_MS + 1 });
  assert.equal(after.find("old"), undefined);
  assert.equal(justBefore.mayHaveForgotten(null), false);
  const age = limits.JOURNAL_RETENTION_MS + 1;
  for (const journal of [after, await openJournal(t, folder, { now: () => at + age })]) {
    assert.deepEqual([null, age, age - limits.AGE_TOLERANCE_MS - 1].map((ago) => journal.mayHaveForgotten(ago)), [true, true, false]);
  }
});

test("a journal of version 1 may have forgotten whatever is older than the retention", async (t) => {
  const folder = await temporaryFolder(t);
  const header = (version) => encodeLine({ t: "journal", version, id: "the-journal", forgotAt: null });
  await writeFile(fileOf(folder), header(1));
  const at = 1_800_000_000_000;
  const old = limits.JOURNAL_RETENTION_MS;
  const journal = await openJournal(t, folder, { now: () => at });
  assert.equal(journal.id, "the-journal");
  assert.deepEqual([old, old - limits.AGE_TOLERANCE_MS - 1].map((ago) => journal.mayHaveForgotten(ago)), [true, false]);
});

test("too many calls: the oldest with an outcome are forgotten, and the journal says so, also after a restart", async (t) => {
  const folder = await temporaryFolder(t);
  const journal = await openJournal(t, folder, { entries: 20 });
  await journal.started("under way", "d");
  for (let index = 0; index < 20; index += 1) {
    await journal.started(`call-${index}`, "d");
    await journal.notSent(`call-${index}`);
  }
  await journal.started("last", "d"); // waits for the compaction that is due
  await journal.notSent("last");
  assert.equal(journal.find("under way").state, STARTED);
  assert.equal(journal.find("call-0"), undefined);
  assert.equal(journal.mayHaveForgotten(0), true);
  assert.equal((await openJournal(t, folder)).mayHaveForgotten(0), true);
});

test("after close nothing is accepted", async (t) => {
  const journal = await openJournal(t, await temporaryFolder(t));
  await journal.close();
  await assert.rejects(journal.started("a", "d"), /closed/);
});
