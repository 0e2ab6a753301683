// One call, as the function of an action sees it, and the replies that the service gave.

import { Perform, unexpected } from "./outcome.js";

/** Characters of a strange body that an error repeats. */
const SHOWN_CHARS_MAX = 200;

export class Call {
    #replies;

    constructor({ action, settings, replies, idempotencyKey, nowMs }) {
        this.action = action;
        /** The tenant's settings for the skill, which pass the skill's schema. */
        this.settings = settings;
        /** The same for every retry of this call: for services that drop a repeated request. */
        this.idempotencyKey = idempotencyKey;
        /** When the call was made, in milliseconds since 1970. It stays the same while it is retried. */
        this.nowMs = nowMs;
        this.#replies = replies;
    }

    /** Has the request carried out and gives its reply. */
    send(request) {
        const reply = this.#replies.shift();
        if (reply === undefined) throw new Perform(request.wit);
        return new Reply(reply);
    }

    /** Where the service is: the setting `base_url`, or this one, without a slash at its end. */
    baseUrl(otherwise) {
        return (this.settings.base_url ?? otherwise).replace(/\/+$/, "");
    }
}

export class Reply {
    constructor(wit) {
        this.status = wit.status;
        /** `[name, value]`, in the order in which they came. */
        this.headers = wit.headers;
        this.bytes = wit.body;
    }

    get isSuccess() {
        return this.status >= 200 && this.status < 300;
    }

    /** The first header of this name, whatever its case. */
    header(name) {
        return this.headers.find(([n]) => n.toLowerCase() === name.toLowerCase())?.[1];
    }

    /** `Retry-After` in seconds (RFC 9110, 10.2.3), as milliseconds. */
    get retryAfterMs() {
        const value = this.header("retry-after")?.trim() ?? "";
        return /^\d{1,9}$/.test(value) ? Number(value) * 1000 : undefined;
    }

    get text() {
        return fromUtf8(this.bytes);
    }

    /** The body as JSON; null where it is empty. */
    json() {
        const { text } = this;
        if (text === "") return null;
        try {
            return JSON.parse(text);
        } catch (error) {
            const shown = [...text].slice(0, SHOWN_CHARS_MAX).join("");
            throw unexpected(`status ${this.status} with a body that cannot be read (${error.message}): ${shown}`);
        }
    }
}

/** The engine has no TextDecoder. What is no UTF-8 becomes U+FFFD. */
export function fromUtf8(bytes) {
    let text = "";
    for (let at = 0; at < bytes.length; ) {
        const length = sequenceLength(bytes[at]);
        let escaped = "";
        for (const byte of bytes.slice(at, at + length)) escaped += `%${byte.toString(16).padStart(2, "0")}`;
        try {
            text += bytes[at] < 0x80 ? String.fromCharCode(bytes[at]) : decodeURIComponent(escaped);
            at += length;
        } catch {
            text += "\ufffd";
            at += 1;
        }
    }
    return text;
}

const sequenceLength = (first) => (first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);
