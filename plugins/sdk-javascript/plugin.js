// A plugin's own description, as the contract's functions: what `component.js` exports and `testing.js` calls.

import { Call } from "./call.js";
import { Failure, Perform, invalid, unexpected } from "./outcome.js";
import { deny } from "./policy.js";
import { object, read } from "./types.js";

const parsed = (what, json) => {
    try {
        return JSON.parse(json || "{}");
    } catch (error) {
        throw invalid("", `the ${what} are no JSON: ${error.message}`);
    }
};
const schemaText = (type) => JSON.stringify(type.schema);
const settingsOf = (plugin) => object(plugin.settings ?? {});

/** `skill` with what package.json and README.md say of it. */
export function manifestOf(skill, about) {
    return {
        skill: skill.name,
        about: aboutOf(skill, about),
        actions: Object.entries(skill.actions).map(([name, action]) => actionOf(name, action)),
        hosts: skill.hosts ?? [],
        hostSettings: skill.hostSettings ?? [],
        settingsSchema: schemaText(settingsOf(skill)),
    };
}

export const aboutOf = (plugin, about) => ({ ...about, title: plugin.title, categories: plugin.categories ?? ["other"] });

function actionOf(name, action) {
    const risk = action.risk ?? "read";
    return {
        name,
        title: action.title,
        summary: action.summary ?? "",
        risk,
        paramsSchema: schemaText(object(action.params ?? {})),
        outputSchema: schemaText(action.output),
        examples: Object.entries(action.examples).map(([title, params]) => ({ title, params: JSON.stringify(params) })),
        scopes: Object.entries(action.scopes ?? {}).map(([scope, pointer]) => ({ name: scope, pointer })),
        credentials: action.credentials ?? [],
        idempotent: action.idempotent ?? risk === "read",
        pagination: action.pagination ?? null,
    };
}

/** What comes next in a call; throws the contract's failure. */
export function nextStep(skill, call, replies, log) {
    try {
        const action = Object.hasOwn(skill.actions, call.action) ? skill.actions[call.action] : undefined;
        if (!action) throw invalid("", `there is no action \`${call.action}\``);
        const params = read(object(action.params ?? {}), parsed("parameters", call.params));
        const settings = read(settingsOf(skill), parsed("settings", call.settings));
        const { idempotencyKey, now: nowMs } = call;
        const told = new Call({ action: call.action, settings, replies: [...replies], idempotencyKey, nowMs });
        const { output, summary } = action.run(told, params);
        return { tag: "finish", val: { output: JSON.stringify(output), summary } };
    } catch (stop) {
        if (stop instanceof Perform) return { tag: "perform", val: stop.request };
        if (stop instanceof Failure) throw stop.wit;
        log.error(`${stop}\n${stop?.stack ?? ""}`);
        throw unexpected(`the plugin itself failed: ${stop}`).wit;
    }
}

export function credentialSchemaOf(skillName, credentials, about) {
    const fields = Object.entries(credentials.fields).map(([key, field]) => ({
        key,
        kind: field.kind,
        required: field.required ?? true,
        label: field.label,
        help: field.help ?? "",
        placeholder: field.placeholder ?? "",
        scopes: field.scopes ?? [],
        oauth: field.oauth ?? null,
    }));
    return { skill: skillName, about: aboutOf(credentials, about), fields };
}

/** Throws what is wrong with the shape of a value, and says nothing else of it. */
export function checkCredential(credentials, key, value) {
    const known = Object.hasOwn(credentials.fields, key) ? credentials.fields[key] : {};
    const { prefixes = [], minLength = 1, maxLength = 4096, pattern = "^[!-~]+$" } = known.shape ?? {};
    const length = [...value].length;
    if (value === "") throw "empty";
    if (!new RegExp(pattern, "u").test(value)) throw "wrong-characters";
    if (prefixes.length > 0 && !prefixes.some((prefix) => value.startsWith(prefix))) throw "wrong-prefix";
    if (length < minLength) throw "too-short";
    if (length > maxLength) throw "too-long";
}

export function policyManifestOf(policy, about) {
    return {
        name: policy.name,
        about: aboutOf(policy, about),
        settingsSchema: schemaText(settingsOf(policy)),
        examples: policy.examples.map((example) => JSON.stringify(example)),
    };
}

/** Answers for every request: what cannot be read is denied. */
export function decide(policy, request, log) {
    try {
        const settings = read(settingsOf(policy), parsed("settings", request.settings));
        return policy.decide({ ...request, params: parsed("parameters", request.params) }, settings);
    } catch (error) {
        if (error instanceof Failure) {
            const found = error.wit.val.map(({ pointer, message }) => `${pointer} ${message}`.trim());
            return deny(`the policy ${policy.name} cannot be applied: ${found.join("; ")}`);
        }
        log.error(`${error}\n${error?.stack ?? ""}`);
        return deny(`the policy ${policy.name} failed: ${error}`);
    }
}
