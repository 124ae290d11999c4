// `node bench/start.mjs [NAME=FILE.js ...]`: what the script costs a page as it starts, as times of the floor that is measured
// in the same run: a script that sends one request. Each FILE starts another tracker, with `COLLECTOR` as its host (what it
// imports is bundled here), or is an earlier build. Each visit is of a new browser context, with nothing stored or cached;
// `ROUNDS` (9) of each, interleaved.
//
// init: milliseconds of the main thread in the script and in what it calls later, until the first page view is made, waits for
// the browser's other processes included; "init, CPU" without them. CPU: of all threads of the page's process in `CPU_MS`
// (3,000), so compiling off the main thread counts, and our first request, which leaves about then, may not.
import { createServer } from "node:http";
import { readdirSync, readFileSync } from "node:fs";
import chromium from "@sparticuz/chromium";
import { build } from "esbuild";
import { chromium as playwright } from "playwright-core";

const ROUNDS = +(process.env.ROUNDS ?? 9);
const FLOOR = "plain beacon";
const START_MS = 1_000; // after the page is there: the first page view is made by then
const CPU_MS = +(process.env.CPU_MS ?? 3_000);
const BEACON = `fetch(COLLECTOR + "/beacon", { method: "POST", keepalive: true, body: JSON.stringify({ url: location.href }) })`;

const received = {}; // requests that the collector got, by contender
const collector = await listen((request, response) => {
  const sender = request.headers.referer && decodeURIComponent(new URL(request.headers.referer).pathname.split("/")[1]);
  if (request.method === "POST") received[sender] = (received[sender] ?? 0) + 1;
  response.writeHead(200, { "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*" });
  response.end("{}");
});

const contenders = {
  blank: undefined,
  "empty script": "window.started = true;",
  "plain beacon": BEACON,
  ManyMetrics: readFileSync("dist/mm.js", "utf8"),
};
for (const given of process.argv.slice(2)) {
  const [name, file] = given.split("=");
  contenders[name] = await bundled(file);
}

const browser = await playwright.launch({ executablePath: await chromium.executablePath(), args: argsOf() });
const control = await browser.newBrowserCDPSession();
const site = await listen((request, response) => {
  const [, name, file] = decodeURIComponent(request.url).split("/");
  const isScript = file === "t.js";
  response.writeHead(name in contenders ? 200 : 404, { "Content-Type": isScript ? "text/javascript" : "text/html" });
  response.end(isScript ? contenders[name] : page(contenders[name]));
});

const measured = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
for (let round = 0; round <= ROUNDS; round++) {
  for (const name in contenders) {
    const values = { ...(await visit(name, start)), ...(await visit(name, spent)) };
    if (round) measured[name].push(values); // the first warms up
  }
}
await browser.close();
site.server.close();
collector.server.close();
report();

/** Milliseconds that the main thread spends in the contender and what it sets off, until its first page view is made. */
async function start(tab, url) {
  const trace = await traced(tab, async () => {
    await tab.goto(url);
    await tab.waitForTimeout(START_MS);
  });
  const tasks = trace.filter(({ ph, dur, args }) => ph === "X" && dur && (args?.data?.url ?? args?.fileName ?? "").endsWith("/t.js"));
  const { pid, tid } = tasks.find(({ name }) => name === "EvaluateScript") ?? {};
  const main = tasks.filter((task) => task.pid === pid && task.tid === tid);
  const outer = main.filter((task) => !main.some((other) => other !== task && contains(other, task)));
  const sum = (name) => outer.reduce((all, task) => all + task[name] / 1_000, 0);
  return { init: sum("dur"), "init, CPU": sum("tdur") };
}

/** Milliseconds of CPU of the page's process, all its threads. */
async function spent(tab, url) {
  const { processInfo } = await control.send("SystemInfo.getProcessInfo");
  const [{ id }] = processInfo.filter(({ type }) => type === "renderer");
  const before = cpuOf(id);
  await tab.goto(url);
  await tab.waitForTimeout(CPU_MS);
  return { CPU: cpuOf(id) - before };
}

function cpuOf(pid) {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.reduce((sum, id) => sum + +readFileSync(`/proc/${pid}/task/${id}/schedstat`, "utf8").split(" ")[0] / 1e6, 0);
}

async function visit(name, measure) {
  const context = await browser.newContext();
  const tab = await context.newPage();
  const value = await measure(tab, `${site.url}/${encodeURIComponent(name)}/`);
  await context.close();
  return value;
}

async function traced(tab, run) {
  const session = await browser.newBrowserCDPSession();
  const events = [];
  session.on("Tracing.dataCollected", ({ value }) => events.push(...value));
  const ended = new Promise((resolve) => session.once("Tracing.tracingComplete", resolve));
  await session.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["devtools.timeline", "v8"] } });
  await run();
  await session.send("Tracing.end");
  await ended;
  await session.detach();
  return events;
}

function contains(outer, inner) {
  return outer.ts <= inner.ts && outer.ts + outer.dur >= inner.ts + inner.dur;
}

function page(script) {
  const tag = `<script>COLLECTOR = "${collector.url}"</script><script defer src="t.js" data-key="wk_bench" data-host="${collector.url}"></script>`;
  return `<!doctype html><meta name=referrer content=unsafe-url><title>A page</title>${script === undefined ? "" : tag}<p>Nothing much`;
}

async function bundled(file) {
  const text = readFileSync(file, "utf8");
  if (!/^import /m.test(text)) return text; // a classic script, such as one of released/
  const { outputFiles } = await build({ entryPoints: [file], bundle: true, minify: true, format: "iife", write: false });
  return outputFiles[0].text;
}

function listen(answer) {
  const server = createServer(answer);
  return new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve({ server, url: `http://127.0.0.1:${server.address().port}` })),
  );
}

function argsOf() {
  const unlike = ["--single-process", "--no-zygote", "--disable-web-security", "--disable-site-isolation-trials"];
  // Plausible's tracker sends nothing where `navigator.webdriver` is true.
  return [...chromium.args.filter((one) => !unlike.includes(one)), "--disable-blink-features=AutomationControlled"];
}

function report() {
  const medians = Object.fromEntries(Object.entries(measured).map(([name, visits]) => [name, medianOf(visits)]));
  const columns = Object.keys(medians.blank);
  console.log("".padEnd(14), ...columns.map((column) => column.padStart(20)));
  for (const name in medians) {
    const cells = columns.map((column) => {
      const over = (one) => medians[one][column] - medians.blank[column];
      const isNoise = over(FLOOR) <= 0; // more rounds, or a quieter machine
      const ratio = name === "blank" ? "" : isNoise ? " (?)" : ` (x${(over(name) / over(FLOOR)).toFixed(1)})`;
      return (over(name).toFixed(2) + ratio.padStart(8)).padStart(20);
    });
    console.log(name.padEnd(14), ...cells, `${received[name] ?? 0} requests`.padStart(14));
  }
  console.log(`Milliseconds over a blank page; in brackets: times "${FLOOR}". Medians of ${ROUNDS} visits, interleaved.`);
}

function medianOf(visits) {
  const middle = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
  return Object.fromEntries(Object.keys(visits[0]).map((column) => [column, middle(visits.map((one) => one[column]))]));
}
