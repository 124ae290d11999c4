// `node build.mjs [FOLDER]`: the modules, their types and the classic scripts, into dist/ or that folder. What begins with
// an underscore is nobody's business, and so is what INTERNAL names: it is mangled away.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { minify } from "terser"; // 2 % smaller than what esbuild makes

// None of these may be the name of anything that is sent.
const INTERNAL = /^_|^(adopt|bytes|callback|changed|choose|dropped|fields|identity|isDenied|isShut|resume|sender|texts|underWay|waiting|waitMs|wake|put|take|drop|mark|gone|back|handOver|live|shared|items|events|look|keep|user|save|clear|renew|seen|next|read|write|erase|names)$/;
const out = process.argv[2] ?? "dist";
const common = {
  bundle: true,
  packages: "external",
  target: "es2021",
  minifySyntax: true,
  mangleProps: INTERNAL,
  sourcemap: "external",
  legalComments: "none",
  outdir: "dist", // in any case, so that a build is the same wherever it is put
  write: false,
};
// Each file is whole, so that a page loads one.
const modules = ["index", "autocapture", "web-vitals", "errors", "react"];
const later = { "mm-web-vitals": "web-vitals.script", "mm-errors": "errors.script" }; // by the classic script, which knows their hashes

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await Promise.all([...modules.map((name) => make(name, name, "esm")), ...entries(later)]);
const integrity = Object.fromEntries(Object.keys(later).map((name) => [`${name}.js`, hashOf(`${name}.js`)]));
// V8 then reads it once: most of it runs as it is loaded. It saves a page 1.3 ms of its CPU, a quarter.
const HINT = "//# allFunctionsCalledOnLoad";
await make("mm", "script", "iife", { INTEGRITY: JSON.stringify(integrity) }, HINT);
const snippet = await minify(readFileSync("src/snippet.js", "utf8"), { ecma: 2020, compress: { passes: 3 } });
writeFileSync(join(out, "snippet.html"), `<script>${snippet.code}</script>\n`);
const types = ["--emitDeclarationOnly", "--sourceMap", "false", "--outDir", out];
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", ...types], { stdio: "inherit" });

function entries(named) {
  return Object.entries(named).map(([name, source]) => make(name, source, "iife"));
}

async function make(name, source, format, define = {}, hint = "") {
  const built = await build({ ...common, format, define, entryPoints: { [name]: `src/${source}.ts` } });
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
  return "sha384-" + createHash("sha384").update(readFileSync(join(out, file))).digest("base64");
}
