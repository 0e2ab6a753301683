// What a component exports, made from a plugin's own description. Only `build.js` uses it.

import { log, writeTo } from "./log.js";
import {
    checkCredential, credentialSchemaOf, decide, manifestOf, nextStep, policyManifestOf,
} from "./plugin.js";

/** @param {{ skill?: object, credentials?: object, policy?: object }} plugin */
export function component(plugin, about, write) {
    writeTo(write);
    const { skill, credentials, policy } = plugin;
    return {
        skillAdapter: skill && {
            describe: () => manifestOf(skill, about),
            next: (call, replies) => at(call.now, () => nextStep(skill, call, replies, log)),
        },
        credentialSchema: credentials && {
            describe: () => credentialSchemaOf(credentials.skill ?? skill.name, withTitle(plugin), about),
            check: (key, value) => checkCredential(credentials, key, value),
        },
        routingPolicy: policy && {
            describe: () => policyManifestOf(policy, about),
            decide: (request) => at(request.now, () => decide(policy, request, log)),
        },
    };
}

const withTitle = ({ skill, credentials }) => ({ title: skill?.title, categories: skill?.categories, ...credentials });

const MachineDate = Date;
/** The last instant that a Date can hold (ECMA-262, 21.4.1.1). */
const LAST_MS = 8.64e15;

/** Does some work while the clock stands still at this time: there is no other clock. */
function at(nowMs, work) {
    const now = Math.min(Number(nowMs), LAST_MS);
    globalThis.Date = class Date extends MachineDate {
        constructor(...given) {
            if (given.length === 0) super(now);
            else super(...given);
        }
        static now() {
            return now;
        }
    };
    return work();
}
