// For checks of `scripts/services` whose package carries TypeScript types: requests, written as a TypeScript file, are
// held against them. It lies beside the check when it runs.

import ts from "typescript";

/** Lines of a TypeScript file, each about one request. */
export class TypedLines {
  #lines;
  #about = [];

  /** `prelude`: what comes before them, as imports and types. */
  constructor(prelude) {
    this.#lines = prelude.trim().split("\n");
  }

  /** Says that `value`, which is JSON, is of the type; `about` is given back with what the compiler says of it. */
  add(type, value, about) {
    this.#about[this.#lines.length] = about;
    this.#lines.push(`export const value${this.#lines.length}: ${type} = ${JSON.stringify(value)};`);
  }

  get count() {
    return this.#about.filter(Boolean).length;
  }

  /** What the compiler says, as pairs: what the line is about, and the message. */
  faults() {
    return compile(this.#lines.join("\n")).map((diagnostic) => {
      const line = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line;
      const message = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ");
      if (this.#about[line] === undefined) throw new Error(`the check itself does not compile: ${message}`);
      return [this.#about[line], message];
    });
  }
}

/** The source lies beside this file, where the packages are found, but nowhere on disk. */
function compile(source) {
  const path = new URL("./requests.ts", import.meta.url).pathname;
  const options = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (name, ...rest) => (name === path ? ts.createSourceFile(name, source, options.target) : getSourceFile(name, ...rest));
  host.fileExists = (name) => name === path || fileExists(name);
  host.readFile = (name) => (name === path ? source : readFile(name));
  const program = ts.createProgram([path], options, host);
  return ts.getPreEmitDiagnostics(program, program.getSourceFile(path));
}
