// `node build.mjs [FOLDER]`: the modules, their types and the classic scripts, into dist/ or that folder. What begins with
// an underscore is nobody's business: it is mangled away.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";

const out = process.argv[2] ?? "dist";
const common = {
  bundle: true,
  target: "es2021",
  minify: true,
  mangleProps: /^_/,
  sourcemap: true,
  legalComments: "none",
  outdir: "dist", // in any case, so that a build is the same wherever it is put
  write: false,
};
// Modules share what they share; each classic script is whole.
const modules = ["index", "web-vitals", "errors"];
const scripts = { mm: "script", "mm-web-vitals": "web-vitals.script", "mm-errors": "errors.script" };

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const builds = [
  { entryPoints: modules.map((name) => `src/${name}.ts`), format: "esm", splitting: true },
  ...Object.entries(scripts).map(([name, source]) => ({ entryPoints: { [name]: `src/${source}.ts` }, format: "iife" })),
];
for (const { outputFiles } of await Promise.all(builds.map((one) => build({ ...common, ...one })))) {
  for (const { path, contents } of outputFiles) writeFileSync(join(out, basename(path)), contents);
}
const types = ["--emitDeclarationOnly", "--sourceMap", "false", "--outDir", out];
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", ...types], { stdio: "inherit" });
