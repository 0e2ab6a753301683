// The journal's text: one record a line, `<crc32 in 8 hex digits> <json>\n`. The checksum tells a record
// that is whole from one that a crash or a bad disk left behind.
import { crc32 } from "node:zlib";

const LF = 10;
const CHECKSUM_LENGTH = 8;

export function encodeLine(record) {
  const json = Buffer.from(JSON.stringify(record), "utf8");
  return Buffer.concat([Buffer.from(`${checksum(json)} `), json, Buffer.from("\n")]);
}

/** The record of one line without its line feed, or null if it is not whole. */
export function decodeLine(line) {
  const json = line.subarray(CHECKSUM_LENGTH + 1);
  if (line.toString("latin1", 0, CHECKSUM_LENGTH + 1) !== `${checksum(json)} `) return null;
  try {
    return JSON.parse(json.toString("utf8"));
  } catch {
    return null;
  }
}

/**
 * Reads a whole file. `records` are `{record, offset, length}` in order; `end` is where the next line
 * belongs. A last line without its line feed is a write that a crash cut short, which nobody relied on;
 * any other line that is not whole makes the file `damaged`.
 */
export function decodeFile(file) {
  const records = [];
  let damaged = false;
  let offset = 0;
  for (let lineFeed = file.indexOf(LF); lineFeed >= 0; lineFeed = file.indexOf(LF, offset)) {
    const record = decodeLine(file.subarray(offset, lineFeed));
    if (record === null) damaged = true;
    else records.push({ record, offset, length: lineFeed - offset });
    offset = lineFeed + 1;
  }
  return { records, damaged, end: offset };
}

const checksum = (bytes) => crc32(bytes).toString(16).padStart(CHECKSUM_LENGTH, "0");
