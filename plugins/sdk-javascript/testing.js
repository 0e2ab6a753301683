// Tests a plugin as the plain functions that it is: no gateway, no WebAssembly.

import { log } from "./log.js";
import { checkCredential, decide, nextStep } from "./plugin.js";
import { percentEncoded } from "./request.js";

const NOW_MS = 1_700_000_000_000;

/** One call of an action, and the replies that it was given so far. */
export class Conversation {
    #replies = [];

    constructor(skill, action, params, { settings = {}, nowMs = NOW_MS } = {}) {
        this.skill = skill;
        this.call = {
            action,
            params: JSON.stringify(params),
            settings: JSON.stringify(settings),
            idempotencyKey: "01890000-0000-7000-8000-000000000000",
            now: nowMs,
        };
    }

    /** What the gateway would be told now; throws the contract's failure. */
    step() {
        return nextStep(this.skill, this.call, this.#replies, log);
    }

    /** The request that is asked for now, with credentials as `{key}`. */
    request() {
        const step = this.step();
        if (step.tag !== "perform") throw new Error(`no request is asked for: ${JSON.stringify(step)}`);
        return seen(step.val);
    }

    /** Gives a reply with a body of JSON. */
    reply(status, body, headers = {}) {
        const all = { "content-type": "application/json", ...headers };
        return this.replyWith(status, all, new TextEncoder().encode(JSON.stringify(body)));
    }

    replyWith(status, headers, body) {
        this.#replies.push({ status, headers: Object.entries(headers), body });
        return this;
    }

    /** What it came to. */
    finish() {
        const step = this.step();
        if (step.tag !== "finish") throw new Error(`it is not done: ${JSON.stringify(step)}`);
        return { output: JSON.parse(step.val.output), summary: step.val.summary };
    }

    /** Why it cannot go on, as the contract has it. */
    failure() {
        let step;
        try {
            step = this.step();
        } catch (failure) {
            if (failure instanceof Error) throw failure;
            return failure;
        }
        throw new Error(`it goes on: ${JSON.stringify(step)}`);
    }

    /** How the service said no. */
    refusal() {
        const failure = this.failure();
        if (failure.tag !== "refused") throw new Error(`it was not refused: ${JSON.stringify(failure)}`);
        return failure.val;
    }
}

const shown = (parts) =>
    parts
        .map(({ tag, val }) => {
            if (tag === "bytes") return new TextDecoder().decode(val);
            if (tag === "credential") return `{${val}}`;
            return tag === "basic" ? "{basic}" : val;
        })
        .join("");

function seen({ method, url, query, headers, body }) {
    const pairs = query.map(({ name, value }) => `${percentEncoded(name)}=${percentEncoded(shown(value))}`);
    const address = shown(url);
    const joiner = address.includes("?") ? "&" : "?";
    return {
        line: `${method.toUpperCase()} ${address}${pairs.length > 0 ? joiner + pairs.join("&") : ""}`,
        headers: Object.fromEntries(headers.map(({ name, value }) => [name.toLowerCase(), shown(value)])),
        body: body ? shown(body.val.parts) : "",
        json: () => JSON.parse(shown(body.val.parts)),
    };
}

/** Fails unless each example of each action is something that the action takes. */
export function examplesRun(skill) {
    for (const [name, action] of Object.entries(skill.actions)) {
        for (const [title, params] of Object.entries(action.examples)) {
            try {
                new Conversation(skill, name, params).step();
            } catch (failure) {
                throw new Error(`${name}, \`${title}\`: ${JSON.stringify(failure)}`);
            }
        }
    }
}

/** What the policy says of a call; what is not given is plain. */
export function decision(policy, settings, call = {}) {
    const request = {
        skill: "slack",
        action: "send_message",
        risk: "write",
        params: {},
        scopes: [],
        actor: { kind: "person", id: "somebody", roles: [], trust: 1, delegationDepth: 0 },
        usage: { callsInWindow: 0, daySpendMicroUsd: 0, monthSpendMicroUsd: 0, estimatedCostMicroUsd: null },
        instances: [],
        models: [],
        now: NOW_MS,
        ...call,
    };
    const params = JSON.stringify(request.params);
    return decide(policy, { ...request, params, settings: JSON.stringify(settings) }, log);
}

/** What is wrong with a value for the credential of this key; null where nothing is. */
export function violation(credentials, key, value) {
    try {
        checkCredential(credentials, key, value);
        return null;
    } catch (violation_) {
        return violation_;
    }
}
