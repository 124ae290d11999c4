// `node tests/react/build.mjs FOLDER HOST`: the page for a browser, app.js, and what a server makes of it, app.html.
import { rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";

const [out, host] = process.argv.slice(2);
const common = {
  bundle: true,
  format: "esm",
  jsx: "automatic",
  // StrictMode does what it does in development only.
  define: { HOST: JSON.stringify(host), "process.env.NODE_ENV": '"development"' },
};
await build({ ...common, format: "iife", entryPoints: ["tests/react/app.tsx"], outfile: join(out, "app.js") });
const server = "tests/react/.server.mjs"; // in here, where it finds React
await build({
  ...common,
  stdin: {
    contents: `import { renderToString } from "react-dom/server"; import { App } from "./app.tsx";
      export const html = renderToString(<App />);`,
    loader: "tsx",
    resolveDir: "tests/react",
  },
  platform: "node",
  packages: "external",
  outfile: server,
});
try {
  writeFileSync(join(out, "app.html"), (await import(resolve(server))).html);
} finally {
  rmSync(server);
}
