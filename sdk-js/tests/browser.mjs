// A real Chromium that a test drives: a line of JSON in is a command, a line out its answer.
import { createInterface } from "node:readline";
import chromium from "@sparticuz/chromium";
import { chromium as playwright } from "playwright-core";

// As anybody's browser is: a process a page, so that one that crashes takes no other with it, and the web's own rules.
const unlike = ["--single-process", "--no-zygote", "--disable-web-security", "--disable-site-isolation-trials"];
const args = chromium.args.filter((one) => !unlike.includes(one));
const browser = await playwright.launch({
  executablePath: await chromium.executablePath(),
  args: [...args, "--host-resolver-rules=MAP *.test 127.0.0.1"], // names, for cookies of subdomains
  ignoreDefaultArgs: ["--disable-back-forward-cache"],
});
let context;
const pages = new Map();
const errors = []; // what pages threw, or Chromium complained of
let blocked = 0;

const commands = {
  /** Close all pages, and forget what they stored and what was set for them, as if Chromium were started again. */
  async renew() {
    await context?.close();
    context = await browser.newContext();
    pages.clear();
    errors.length = blocked = 0;
  },
  async open({ page, url }) {
    const opened = pages.get(page) ?? (await context.newPage());
    if (opened !== pages.get(page)) {
      opened.on("pageerror", (error) => errors.push(String(error)));
      opened.on("console", (said) => said.type() === "error" && errors.push(said.text()));
    }
    pages.set(page, opened);
    await opened.goto(url);
  },
  evaluate: ({ page, code }) => pages.get(page).evaluate(code),
  click: ({ page, selector }) => pages.get(page).click(selector),
  async close({ page }) {
    await pages.get(page).close({ runBeforeUnload: false });
    pages.delete(page);
  },
  async crash({ page }) {
    const session = await context.newCDPSession(pages.get(page));
    const gone = new Promise((resolve) => pages.get(page).once("crash", resolve));
    session.send("Page.crash").catch(() => undefined); // it never answers
    await gone;
    await pages.get(page).close();
    pages.delete(page);
  },
  arrived: ({ page, url }) => pages.get(page).waitForURL(url),
  offline: ({ is }) => context.setOffline(is),
  /** Whatever else Playwright can do: `code` is a function's body, that has the page (a new one, perhaps). */
  async drive({ page, code, given }) {
    const driven = pages.get(page) ?? (await context.newPage());
    pages.set(page, driven);
    return new Function("page", "given", `return (async () => { ${code} })()`)(driven, given);
  },
  back: ({ page }) => pages.get(page).goBack({ waitUntil: "commit" }),
  /** Runs before a page's own scripts. */
  before: ({ code }) => context.addInitScript(code),
  errors: () => errors,
  /** As an extension does: requests to it fail. */
  block: ({ url }) => context.route(url, (route) => (blocked++, route.abort("blockedbyclient"))),
  unblock: ({ url }) => context.unroute(url),
  blocked: () => blocked,
  /** As a person with such a window sees it; `full`: the whole page, not what is in view. */
  async screenshot({ page, path, width, height, colorScheme, full }) {
    const shown = pages.get(page);
    await shown.setViewportSize({ width, height });
    await shown.emulateMedia({ colorScheme });
    await shown.screenshot({ path, fullPage: full ?? false, animations: "disabled" });
  },
};

await commands.renew();
console.log(JSON.stringify({ version: browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...given } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ done: (await commands[name](given)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
