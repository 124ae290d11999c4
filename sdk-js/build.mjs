// `node build.mjs [FOLDER]`: the modules, their types and the classic scripts, into dist/ or that folder. What begins with
// an underscore is nobody's business, and so is what INTERNAL names: it is mangled away.
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";
import { minify } from "terser"; // 2 % smaller than what esbuild makes

const INTERNAL = /^_|^(adopt|bytes|callback|changed|choose|dropped|fields|identity|isDenied|isOpen|resume|sender|texts|underWay|waiting|waitMs)$/;
const out = process.argv[2] ?? "dist";
const common = {
  bundle: true,
  target: "es2021",
  minifySyntax: true,
  mangleProps: INTERNAL,
  sourcemap: "external",
  legalComments: "none",
  outdir: "dist", // in any case, so that a build is the same wherever it is put
  write: false,
};
// Each is whole, so that a page loads one file.
const modules = ["index", "web-vitals"];
const scripts = { mm: "script", "mm-web-vitals": "web-vitals.script" };

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const builds = [
  { entryPoints: modules.map((name) => `src/${name}.ts`), format: "esm" },
  ...Object.entries(scripts).map(([name, source]) => ({ entryPoints: { [name]: `src/${source}.ts` }, format: "iife" })),
];
for (const { outputFiles } of await Promise.all(builds.map((one) => build({ ...common, ...one })))) {
  const texts = Object.fromEntries(outputFiles.map(({ path, text }) => [basename(path), text]));
  for (const name of Object.keys(texts).filter((one) => one.endsWith(".js"))) await write(name, texts[name], texts[name + ".map"]);
}
const types = ["--emitDeclarationOnly", "--sourceMap", "false", "--outDir", out];
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", ...types], { stdio: "inherit" });

async function write(name, code, map) {
  const made = await minify(
    { [name]: code },
    {
      module: true,
      ecma: 2020,
      compress: { passes: 3, keep_fargs: false, unsafe_arrows: true },
      sourceMap: { content: map, url: `${name}.map`, filename: name },
    },
  );
  writeFileSync(join(out, name), made.code);
  writeFileSync(join(out, `${name}.map`), made.map);
}
