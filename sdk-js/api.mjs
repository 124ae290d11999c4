// `node api.mjs [FOLDER]`: what each module of lib/ offers, as a report in api/ or that folder. The reports are committed, so
// that a change of what others build on is seen in a diff.
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { Extractor, ExtractorConfig } from "@microsoft/api-extractor";

const out = resolve(process.argv[2] ?? "api");
const { exports } = JSON.parse(readFileSync("package.json", "utf8"));
const draft = mkdtempSync(join(tmpdir(), "api-"));

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
for (const { types } of Object.values(exports)) {
  if (!types) continue; // a classic script
  const name = basename(types, ".d.ts");
  const config = ExtractorConfig.prepare({
    packageJsonFullPath: resolve("package.json"),
    configObjectFullPath: undefined,
    configObject: {
      projectFolder: process.cwd(),
      mainEntryPointFilePath: resolve(types),
      compiler: { tsconfigFilePath: resolve("tsconfig.json") },
      apiReport: { enabled: true, reportFolder: out, reportTempFolder: draft, reportFileName: `${name}.api.md` },
      newlineKind: "lf",
      messages: { extractorMessageReporting: { "ae-missing-release-tag": { logLevel: "none" } } },
    },
  });
  const done = Extractor.invoke(config, {
    localBuild: true,
    messageCallback: (message) => {
      const isNews = message.messageId === "console-api-report-created"; // it always is
      if (isNews || message.logLevel === "info" || message.logLevel === "verbose") message.logLevel = "none";
    },
  });
  if (done.errorCount || done.warningCount) process.exitCode = 1; // they are on screen
}
rmSync(draft, { recursive: true });
