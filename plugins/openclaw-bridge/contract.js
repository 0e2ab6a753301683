// The parameters of `servicetsunami.execute` and `servicetsunami.recall`, read strictly: a misspelt field is refused, not ignored.
import { validateHeaderName, validateHeaderValue } from "node:http";
import { Failure } from "./failure.js";
import * as limits from "./limits.js";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/** Headers that belong to one connection (RFC 9110, 7.6.1), or that would let a caller choose the framing. */
const CONNECTION_HEADERS = new Set([
  "connection", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
  "te", "trailer", "transfer-encoding", "upgrade",
]);
/** Headers that the bridge sets itself; a caller's value is dropped. */
const OWN_HEADERS = new Set(["content-length", "accept-encoding"]);
const NAME = /^[A-Za-z0-9._:-]{1,128}$/;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

const FIELDS = {
  callId: name("callId"),
  resend: optional(boolean("resend"), false),
  retryUnknown: optional(boolean("retryUnknown"), false),
  journalReply: optional(boolean("journalReply"), true),
  journalId: optional(name("journalId"), null),
  sentAgoMs: optional(integer("sentAgoMs", 0, Number.MAX_SAFE_INTEGER), null),
  digest: name("digest"),
  timeoutMs: integer("timeoutMs", 1, limits.MAX_TIMEOUT_MS),
  maxResponseBytes: optional(integer("maxResponseBytes", 0, limits.MAX_RESPONSE_BYTES), limits.DEFAULT_RESPONSE_BYTES),
  secrets: optional(secrets, []),
  privateNetwork: optional(oneOf("privateNetwork", ["refuse", "allow"]), "refuse"),
  request: (value) => record("request", REQUEST_FIELDS, value),
};
const RECALL_FIELDS = {
  callId: name("callId"),
  digest: name("digest"),
  journalId: optional(name("journalId"), null),
  sentAgoMs: integer("sentAgoMs", 0, Number.MAX_SAFE_INTEGER),
};
const REQUEST_FIELDS = {
  method: oneOf("request.method", METHODS),
  url,
  headers: optional(headers, []),
  bodyBase64: optional(body, null),
};

/**
 * A checked call, with `request.url` parsed and `request.body` as bytes or null; or a `Failure` of code
 * `INVALID_REQUEST` that names the field. Values are never repeated in it.
 */
export function readCall(params) {
  const call = record("params", FIELDS, params);
  const { bodyBase64, ...request } = call.request;
  return { ...call, request: { ...request, body: bodyBase64 } };
}

/** Which call is asked about, and when it was first sent; or a `Failure`, as of `readCall`. */
export function readRecall(params) {
  return record("params", RECALL_FIELDS, params);
}

function record(label, fields, value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw invalid(label, "must be an object");
  if (Object.keys(value).some((key) => !Object.hasOwn(fields, key))) throw invalid(label, `has an unknown field; it knows ${Object.keys(fields).join(", ")}`);
  return Object.fromEntries(Object.entries(fields).map(([key, read]) => [key, read(value[key])]));
}

function optional(read, fallback) {
  return (value) => (value === undefined || value === null ? fallback : read(value));
}

function name(field) {
  return (value) => {
    if (typeof value !== "string" || !NAME.test(value)) throw invalid(field, "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -");
    return value;
  };
}

function boolean(field) {
  return (value) => {
    if (typeof value !== "boolean") throw invalid(field, "must be true or false");
    return value;
  };
}

function integer(field, min, max) {
  return (value) => {
    if (!Number.isInteger(value) || value < min || value > max) throw invalid(field, `must be a whole number from ${min} to ${max}`);
    return value;
  };
}

function oneOf(field, allowed) {
  return (value) => {
    if (!allowed.includes(value)) throw invalid(field, `must be one of ${allowed.join(", ")}`);
    return value;
  };
}

function secrets(value) {
  const isSecret = (secret) => typeof secret === "string" && Buffer.byteLength(secret) <= limits.MAX_SECRET_BYTES;
  if (!Array.isArray(value) || value.length > limits.MAX_SECRETS || !value.every(isSecret)) {
    throw invalid("secrets", `must be at most ${limits.MAX_SECRETS} strings of at most ${limits.MAX_SECRET_BYTES} bytes`);
  }
  return value;
}

function url(value) {
  if (typeof value !== "string" || value.length > limits.MAX_URL_LENGTH || !URL.canParse(value)) {
    throw invalid("request.url", `must be an absolute URL of at most ${limits.MAX_URL_LENGTH} characters`);
  }
  const parsed = new URL(value);
  if (parsed.protocol !== "http:" && parsed.protocol !== "https:") throw invalid("request.url", "must begin with http:// or https://");
  if (parsed.username !== "" || parsed.password !== "") throw invalid("request.url", "must not carry user and password; put them into an authorization header");
  return parsed;
}

function headers(value) {
  if (!Array.isArray(value) || value.length > limits.MAX_REQUEST_HEADERS) throw invalid("request.headers", `must be at most ${limits.MAX_REQUEST_HEADERS} pairs`);
  return value.map(header).filter(([key]) => !OWN_HEADERS.has(key));
}

function header(pair, index) {
  const field = `request.headers[${index}]`;
  if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === "string")) throw invalid(field, "must be a pair of strings");
  const key = pair[0].toLowerCase();
  if (CONNECTION_HEADERS.has(key)) throw invalid(field, `must not be ${key}: the bridge sets what belongs to the connection`);
  try {
    validateHeaderName(pair[0]);
    validateHeaderValue(pair[0], pair[1]);
  } catch {
    throw invalid(field, "must be a header name and a value of one line in latin1");
  }
  return [key, pair[1]];
}

function body(value) {
  if (typeof value !== "string" || value.length % 4 !== 0 || !BASE64.test(value)) throw invalid("request.bodyBase64", "must be padded base64");
  const bytes = Buffer.from(value, "base64");
  if (bytes.length > limits.MAX_REQUEST_BODY_BYTES) throw invalid("request.bodyBase64", `must decode to at most ${limits.MAX_REQUEST_BODY_BYTES} bytes`);
  return bytes;
}

function invalid(field, problem) {
  return new Failure("INVALID_REQUEST", `${field} ${problem}`, { field });
}
