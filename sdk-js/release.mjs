// `node release.mjs`: the scripts of dist/, as released/<version>-<hash>/, from where they are served for ever.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync } from "node:fs";

const { version } = JSON.parse(readFileSync("package.json", "utf8"));
const scripts = readdirSync("dist").filter((name) => name.endsWith(".js")).sort();
const tags = scripts.map((name) => `${name} ${hash(readFileSync(`dist/${name}`)).slice(0, 16)} `);
const folder = `released/${version}-${hash(tags.join("")).slice(0, 12)}`; // as api/manymetrics/built_sdk.py names it
mkdirSync(folder); // fails where it is there already
for (const name of scripts) copyFileSync(`dist/${name}`, `${folder}/${name}`);
console.log(folder);

function hash(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}
