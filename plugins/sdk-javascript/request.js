// A request, put together step by step. Credentials are named, never held.

import { invalid } from "./outcome.js";

/** Everything but the unreserved characters of RFC 3986. */
export const percentEncoded = (value) =>
    encodeURIComponent(value).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

const literal = (value) => ({ tag: "text", val: String(value) });
const credential = (key) => ({ tag: "credential", val: key });
const named = (name, value) => ({ name, value: [literal(value)] });

export class Request {
    constructor(method, url) {
        this.wit = { method, url: [literal(url)], query: [], headers: [], body: null };
    }

    /** Adds `/` and the text, percent-encoded: it stays one segment whatever is in it. */
    path(segment) {
        if (["", ".", ".."].includes(segment)) throw invalid("", `\`${segment}\` cannot stand in the path of a request`);
        return this.rawPath(`/${percentEncoded(wellFormed(segment))}`);
    }

    /** Adds text to the URL as it is: `/items`. */
    rawPath(value) {
        this.wit.url.push(literal(value));
        return this;
    }

    /** Left out where there is no value. */
    query(name, value) {
        if (value !== undefined && value !== null) this.wit.query.push(named(name, value));
        return this;
    }

    header(name, value) {
        this.wit.headers.push(named(name, value));
        return this;
    }

    /** `Authorization: Bearer` with the credential of this key. */
    bearer(key) {
        return this.headerOf("Authorization", literal("Bearer "), credential(key));
    }

    /** A header that is the credential of this key, and nothing else. */
    headerCredential(name, key) {
        return this.headerOf(name, credential(key));
    }

    /** `Authorization: Basic` (RFC 7617); both are keys of credentials. */
    basic(usernameKey, passwordKey) {
        const basic = { username: credential(usernameKey), password: credential(passwordKey) };
        return this.headerOf("Authorization", literal("Basic "), { tag: "basic", val: basic });
    }

    headerOf(name, ...value) {
        this.wit.headers.push({ name, value });
        return this;
    }

    json(body) {
        return this.content("application/json; charset=utf-8", JSON.stringify(body));
    }

    /** `application/x-www-form-urlencoded` */
    formUrlencoded(fields) {
        const pairs = Object.entries(fields).map(([name, value]) => `${percentEncoded(name)}=${percentEncoded(value)}`);
        return this.content("application/x-www-form-urlencoded", pairs.join("&"));
    }

    /** A body that is this text. */
    content(contentType, value) {
        this.wit.body = { tag: "content", val: { contentType, parts: [literal(value)] } };
        return this;
    }

    /** A body of bytes as they are. */
    bytes(contentType, bytes) {
        this.wit.body = { tag: "content", val: { contentType, parts: [{ tag: "bytes", val: bytes }] } };
        return this;
    }
}

/** Half of a surrogate pair is no character; JSON can hold one. */
const wellFormed = (value) => String(value).replace(/\p{Surrogate}/gu, "\ufffd");

export const get = (url) => new Request("get", url);
export const post = (url) => new Request("post", url);
export const put = (url) => new Request("put", url);
export const patch = (url) => new Request("patch", url);
export const del = (url) => new Request("delete", url);
