// Holds every request against GitHub's own OpenAPI descriptions: of github.com, and of the oldest Enterprise Server that
// is supported. Path, parameters and body: what is needed is there, nothing is unknown, all of it is of the right type.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import Ajv from "ajv";

const BASE = "https://api.github.com";
const DESCRIPTIONS = ["api.github.com", "ghes-3.17"];
const HEADERS = {
  authorization: "Bearer {token}",
  accept: "application/vnd.github+json",
  "x-github-api-version": "2022-11-28",
  "user-agent": "servicetsunami-gateway", // without one GitHub refuses
};
// The one parameter that stands for several segments of a path, or for none.
const PATH_OF_SEGMENTS = "path";

const require = createRequire(import.meta.url);
const { name, version } = require("@octokit/openapi/package.json");
const requests = JSON.parse(await text(process.stdin));
const found = [];

for (const title of DESCRIPTIONS) {
  const description = JSON.parse(readFileSync(require.resolve(`@octokit/openapi/generated/${title}.json`), "utf8"));
  const checker = new Checker(description);
  for (const request of requests) {
    for (const wrong of checker.faults(request)) {
      found.push(`github: ${title}: ${request.action}, \`${request.example}\`: ${request.method} ${request.url}: ${wrong}`);
    }
  }
}

if (found.length > 0 || requests.length === 0) {
  console.error(found.join("\n") || "github: no request to check");
  process.exit(1);
}
console.log(`github: ${requests.length} requests fit the descriptions of ${DESCRIPTIONS.join(" and ")} in ${name} ${version}`);

function Checker(description) {
  const ajv = new Ajv({ strict: false, coerceTypes: false, allErrors: true, logger: false });
  ajv.addFormat("date-time", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/);
  const templates = Object.keys(description.paths).map((template) => ({ template, pattern: patternOf(template) }));

  this.faults = (request) => {
    if (!request.url.startsWith(`${BASE}/`)) return [`is not below ${BASE}`];
    const url = new URL(request.url);
    const path = request.url.slice(BASE.length).split("?")[0];
    const [template, values] = matched(path);
    const operation = template && description.paths[template][request.method.toLowerCase()];
    if (!operation) return ["there is no such operation"];
    const faults = operation.deprecated ? ["the operation is deprecated"] : [];
    const known = [...(description.paths[template].parameters ?? []), ...(operation.parameters ?? [])].map(resolved);
    faults.push(...parameters(known, "path", values), ...parameters(known, "query", [...url.searchParams]));
    faults.push(...headers(request), ...body(request, operation.requestBody && resolved(operation.requestBody)));
    return faults;
  };

  /** The template with the fewest parameters that the path fits. */
  function matched(path) {
    const fits = templates.flatMap(({ template, pattern }) => {
      const match = pattern.exec(path);
      return match ? [[template, Object.entries(match.groups ?? {}).map(([key, value]) => [key, decodeURIComponent(value)])]] : [];
    });
    return fits.sort((a, b) => a[1].length - b[1].length)[0] ?? [null, []];
  }

  function parameters(known, where, given) {
    const faults = [];
    const here = known.filter((parameter) => parameter.in === where);
    for (const [key, value] of given) {
      const parameter = here.find((parameter) => parameter.name === key);
      if (!parameter) faults.push(`the ${where} parameter ${key} is unknown`);
      else if (parameter.deprecated) faults.push(`the ${where} parameter ${key} is deprecated`);
      else faults.push(...invalid(`the ${where} parameter ${key}`, parameter.schema, spelt(value, closed(parameter.schema))));
    }
    for (const { name, required } of here) {
      if (required && !given.some(([key]) => key === name)) faults.push(`the ${where} parameter ${name} is missing`);
    }
    return faults;
  }

  function headers(request) {
    const given = Object.fromEntries(request.headers.map(([name, value]) => [name.toLowerCase(), value]));
    const names = new Set([...Object.keys(HEADERS), ...Object.keys(given)]);
    return [...names].filter((name) => given[name] !== HEADERS[name]).map((name) => `the header ${name} is ${given[name]}, not ${HEADERS[name]}`);
  }

  function body(request, known) {
    if (request.form.length > 0) return ["has a form"];
    if (request.body === "") return known?.required ? ["the body is missing"] : [];
    if (!known) return ["the operation takes no body"];
    const type = request.content_type?.split(";")[0];
    const content = known.content[type];
    return content ? invalid("the body", content.schema, JSON.parse(request.body)) : [`the operation takes no ${type}`];
  }

  function invalid(what, schema, value) {
    const validate = ajv.compile(closed(schema));
    return validate(value) ? [] : [`${what}: ${ajv.errorsText(validate.errors)}`];
  }

  function resolved(node) {
    return node.$ref ? resolved(node.$ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/")], description)) : node;
  }

  /** The schema without references, in which an object has only the properties that are named. */
  function closed(schema) {
    const node = resolved(schema);
    const copy = { ...node };
    for (const list of ["oneOf", "anyOf", "allOf"]) if (node[list]) copy[list] = node[list].map(closed);
    if (node.items) copy.items = closed(node.items);
    if (node.properties) {
      copy.properties = Object.fromEntries(Object.entries(node.properties).map(([key, value]) => [key, closed(value)]));
      copy.additionalProperties ??= false;
    }
    if (copy.nullable && !copy.type) {
      delete copy.nullable;
      return { anyOf: [copy, { type: "null" }] };
    }
    return copy;
  }
}

function patternOf(template) {
  const parts = template.split(/(\{[^}]+\})/).map((part) => {
    if (!part.startsWith("{")) return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const name = part.slice(1, -1);
    return `(?<${name.replaceAll("-", "_")}>${name === PATH_OF_SEGMENTS ? ".*" : "[^/]+"})`;
  });
  return new RegExp(`^${parts.join("")}$`);
}

/** A text as the value that the schema asks for; the text itself where it is none. */
function spelt(value, schema) {
  const types = [schema, ...(schema.oneOf ?? []), ...(schema.anyOf ?? [])].map((node) => node.type);
  if (types.includes("string")) return value;
  if (types.includes("integer") || types.includes("number")) return /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value;
  if (types.includes("boolean")) return { true: true, false: false }[value] ?? value;
  return value;
}
