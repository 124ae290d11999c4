// `node build.mjs`: the classic scripts into dist/, which is committed, and the modules and their types into lib/, which is
// not. `--modules`: only lib/. `--to FOLDER`: both go below it.
// Names that begin with an underscore, and those in INTERNAL, are private: they are mangled.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { minify } from "terser"; // 2 % smaller than what esbuild makes

// None of these may be the name of anything that is sent.
const INTERNAL = /^_|^(adopt|bytes|callback|changed|choose|dropped|fields|identity|isDenied|isShut|resume|sender|texts|underWay|waiting|waitMs|wake|put|take|drop|mark|gone|back|handOver|live|shared|items|events|look|keep|user|save|clear|renew|seen|next|read|write|erase|names)$/;
const { values: options } = parseArgs({ options: { modules: { type: "boolean" }, to: { type: "string", default: "." } } });
const common = {
  bundle: true,
  packages: "external",
  target: "es2021",
  minifySyntax: true,
  mangleProps: INTERNAL,
  sourcemap: "external",
  legalComments: "none",
  write: false,
};
// Each file is whole, so that a page loads one.
const modules = ["index", "autocapture", "web-vitals", "errors", "react"];
const later = { "mm-web-vitals": "web-vitals.script", "mm-errors": "errors.script" }; // by the classic script, which knows their hashes

// V8 then compiles all of it once, off the main thread: half of it runs as it is loaded.
const HINT = "//# allFunctionsCalledOnLoad";

if (!options.modules) await makeScripts(emptied("dist"));
await makeModules(emptied("lib"));

async function makeScripts(out) {
  await Promise.all(Object.entries(later).map(([name, source]) => make(out, name, source, "iife")));
  const integrity = Object.fromEntries(Object.keys(later).map((name) => [`${name}.js`, hashOf(join(out, `${name}.js`))]));
  await make(out, "mm", "script", "iife", { INTEGRITY: JSON.stringify(integrity) }, HINT);
}

async function makeModules(out) {
  await Promise.all(modules.map((name) => make(out, name, name, "esm")));
  const snippet = await minify(readFileSync("src/snippet.js", "utf8"), { ecma: 2020, compress: { passes: 3 } });
  writeFileSync(join(out, "snippet.html"), `<script>${snippet.code}</script>\n`);
  const types = ["--emitDeclarationOnly", "--sourceMap", "false", "--outDir", out];
  execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", ...types], { stdio: "inherit" });
}

function emptied(name) {
  const out = join(options.to, name);
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  return out;
}

async function make(out, name, source, format, define = {}, hint = "") {
  // The same `outdir` wherever it is put, so that the map is the same, too.
  const entryPoints = { [name]: `src/${source}.ts` };
  const built = await build({ ...common, format, define, entryPoints, outdir: "dist" });
  const [map, code] = built.outputFiles.map(({ text }) => text);
  const directive = /^"use \w+";/.exec(code)?.[0]; // which the minifier takes for a mistake
  const made = await minify(
    { [`${name}.js`]: code },
    {
      module: true,
      ecma: 2020,
      compress: { passes: 3, keep_fargs: false, unsafe_arrows: true, pure_getters: true, inline: 1, hoist_funs: true },
      format: { preamble: [hint, directive].filter(Boolean).join("\n") },
      sourceMap: { content: map, includeSources: true, url: `${name}.js.map`, filename: `${name}.js` },
    },
  );
  writeFileSync(join(out, `${name}.js`), made.code);
  writeFileSync(join(out, `${name}.js.map`), made.map);
}

function hashOf(file) {
  return "sha384-" + createHash("sha384").update(readFileSync(file)).digest("base64");
}
