// Makes the component: `npm run build`, in a plugin's folder. Into build/NAME.wasm.

import { componentize } from "componentize-qjs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { pathToFileURL } from "node:url";

const project = process.cwd();
const kit = relative(project, import.meta.dirname).split(sep).join("/");
const about = JSON.parse(await readFile("package.json", "utf8"));
const plugin = await import(pathToFileURL(join(project, "src/plugin.js")).href);
const has = (name) => plugin[name] !== undefined;

/** The world of the contract, by what the plugin exports. */
const worlds = {
    "skill credentials": "skill-plugin",
    skill: "skill-adapter-plugin",
    credentials: "credential-schema-plugin",
    policy: "routing-policy-plugin",
};
const exported = ["skill", "credentials", "policy"].filter(has).join(" ");
const world = worlds[exported];
if (!world) {
    const wanted = Object.keys(worlds).map((names) => `\`${names}\``).join(", ");
    throw new Error(`src/plugin.js must export one of ${wanted}; it exports \`${exported}\``);
}

const entry = `import log from "servicetsunami:plugin/log@0.1.0";
import * as plugin from "../src/plugin.js";
import { component } from "../${kit}/component.js";
const about = ${JSON.stringify({
    summary: about.description,
    version: about.version,
    licence: about.license,
    homepage: about.homepage ?? null,
    readme: await readFile("README.md", "utf8"),
})};
const made = component(plugin, about, log.write);
${has("skill") ? "export const skillAdapter = made.skillAdapter;\n" : ""}${
    has("credentials") ? "export const credentialSchema = made.credentialSchema;\n" : ""}${
    has("policy") ? "export const routingPolicy = made.routingPolicy;\n" : ""}`;

await mkdir("build", { recursive: true });
const jsPath = join(project, "build/component.js");
await writeFile(jsPath, entry);
const { component } = await componentize({
    witPath: join(project, "wit/v0.1"),
    jsSource: entry,
    jsPath,
    moduleRoot: project,
    world,
    sync: true,
    stubWasi: true, // no clock, file or socket: the gateway gives none
});
// Under another name first: half a file must never look whole to who watches the folder.
const file = `build/${about.name}.wasm`;
await writeFile(`${file}.new`, component);
await rename(`${file}.new`, file);
console.log(`${file}: ${component.length} bytes, ${world}`);
