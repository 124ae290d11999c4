// `node build.mjs [FOLDER]`: the module, its types and the classic script, into dist/ or that folder. What begins with an
// underscore is nobody's business: it is mangled away.
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { build } from "esbuild";

const out = process.argv[2] ?? "dist";
const common = {
  bundle: true,
  target: "es2021",
  minify: true,
  mangleProps: /^_/,
  sourcemap: true,
  legalComments: "none",
};

rmSync(out, { recursive: true, force: true });
// Modules share what they share; each classic script is whole.
const modules = ["index"];
const scripts = { mm: "script" };
await build({ ...common, entryPoints: modules.map((name) => `src/${name}.ts`), format: "esm", splitting: true, outdir: out });
for (const [name, source] of Object.entries(scripts)) {
  await build({ ...common, entryPoints: [`src/${source}.ts`], format: "iife", outfile: `${out}/${name}.js` });
}
const types = ["--emitDeclarationOnly", "--sourceMap", "false", "--outDir", out];
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", ...types], { stdio: "inherit" });
