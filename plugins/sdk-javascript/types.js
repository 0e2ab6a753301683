// Types of parameters, outputs and settings: each gives its JSON Schema (2020-12) and reads a value.

import { Failure } from "./outcome.js";

/**
 * @typedef {object} Type
 * @property {object} schema JSON Schema
 * @property {boolean} [optional] whether a property of this type may be left out
 * @property {(value: unknown, pointer: string, found: {pointer: string, message: string}[]) => unknown} read
 */

const say = (found, pointer, message) => {
    found.push({ pointer, message });
    return undefined;
};

/** @param {{ minLength?: number, maxLength?: number, pattern?: string, format?: string, description?: string }} [rules] */
export const text = (rules = {}) => ({
    schema: { type: "string", ...rules },
    read(value, pointer, found) {
        if (typeof value !== "string") return say(found, pointer, "must be a text");
        const length = [...value].length;
        const { minLength = 0, maxLength = Infinity, pattern } = rules;
        if (length < minLength) return say(found, pointer, `must have at least ${minLength} characters`);
        if (length > maxLength) return say(found, pointer, `must have at most ${maxLength} characters`);
        if (pattern && !new RegExp(pattern, "u").test(value)) return say(found, pointer, `must match ${pattern}`);
        return value;
    },
});

const numeric = (type, fits, what) => (rules = {}) => ({
    schema: { type, ...rules },
    read(value, pointer, found) {
        const { minimum = -Infinity, maximum = Infinity } = rules;
        if (!fits(value)) return say(found, pointer, `must be ${what}`);
        if (value < minimum || value > maximum) return say(found, pointer, `must be from ${minimum} to ${maximum}`);
        return value;
    },
});

/** @type {(rules?: { minimum?: number, maximum?: number, description?: string }) => Type} */
export const integer = numeric("integer", Number.isSafeInteger, "a whole number");
/** @type {(rules?: { minimum?: number, maximum?: number, description?: string }) => Type} */
export const number = numeric("number", Number.isFinite, "a number");

/** True or false. */
export const flag = (rules = {}) => ({
    schema: { type: "boolean", ...rules },
    read: (value, pointer, found) => (typeof value === "boolean" ? value : say(found, pointer, "must be true or false")),
});

/** One of these texts. */
export const choice = (values, rules = {}) => ({
    schema: { type: "string", enum: values, ...rules },
    read: (value, pointer, found) =>
        values.includes(value) ? value : say(found, pointer, `must be one of ${values.join(", ")}`),
});

/** @param {Type} item @param {{ minItems?: number, maxItems?: number, description?: string }} [rules] */
export const list = (item, rules = {}) => ({
    schema: { type: "array", items: item.schema, ...rules },
    read(value, pointer, found) {
        const { minItems = 0, maxItems = Infinity } = rules;
        if (!Array.isArray(value)) return say(found, pointer, "must be a list");
        if (value.length < minItems || value.length > maxItems)
            return say(found, pointer, `must have from ${minItems} to ${maxItems} items`);
        return value.map((one, index) => item.read(one, `${pointer}/${index}`, found));
    },
});

/** A property that may be left out. @param {Type} type */
export const optional = (type) => ({ ...type, optional: true });

/** Any JSON. */
export const anything = (rules = {}) => ({ schema: rules, read: (value) => value });

/** With these properties and no others. @param {Record<string, Type>} properties */
export const object = (properties, rules = {}) => {
    const entries = Object.entries(properties);
    return {
        schema: {
            type: "object",
            properties: Object.fromEntries(entries.map(([name, type]) => [name, type.schema])),
            required: entries.filter(([, type]) => !type.optional).map(([name]) => name),
            additionalProperties: false,
            ...rules,
        },
        read(value, pointer, found) {
            if (typeof value !== "object" || value === null || Array.isArray(value))
                return say(found, pointer, "must be an object");
            for (const name of Object.keys(value))
                if (!Object.hasOwn(properties, name)) say(found, `${pointer}/${token(name)}`, "is not known");
            const read = {};
            for (const [name, type] of entries) {
                if (Object.hasOwn(value, name)) read[name] = type.read(value[name], `${pointer}/${token(name)}`, found);
                else if (!type.optional) say(found, pointer, `lacks \`${name}\``);
            }
            return read;
        },
    };
};

/** One step of a JSON Pointer (RFC 6901). */
const token = (name) => name.replaceAll("~", "~0").replaceAll("/", "~1");

/** The value as this type; fails with everything that is wrong with it. @param {Type} type */
export function read(type, value) {
    const found = [];
    const result = type.read(value, "", found);
    if (found.length > 0) throw new Failure({ tag: "invalid-params", val: found });
    return result;
}
