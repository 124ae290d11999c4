/**
 * What goes wrong in a page's scripts: an event `Error` for what nobody caught, and for what is given to `captureError`.
 *
 * The same error (name, message and place) is said once a page view, and no more than ten are: a loop that throws says
 * little more the second time. Data of people and addresses' parameters are taken out of the texts, as far as they can
 * be told. Whatever was thrown, nothing here throws.
 */
import { maskUrl } from "./mask.js";
import type { Plugin, Properties } from "./types.js";

const MOST = 10; // of a page view
const MOST_MESSAGE_CHARS = 500;
const MOST_STACK_CHARS = 2_000;
/** Harmless, and of everybody; and what belongs to the visitor's browser, not to the page. */
const NOISE = /^Error: ResizeObserver loop|-extension:\/\//;

export interface ErrorOptions {
  /** Errors that are passed over: it is tried on `name: message` and the lines of the stack after that. */
  readonly ignore?: RegExp;
}

type Report = (error: unknown, more: Properties, event?: Partial<ErrorEvent>) => void;

const reports: Report[] = [];

/** `client.use(captureErrors())`: an event `Error` for what nobody caught. */
export function captureErrors({ ignore = NOISE }: ErrorOptions = {}): Plugin {
  return (core) => {
    let page: unknown;
    let said: string[] = [];
    let isBusy = false;

    const report: Report = (error, more, event = {}) => {
      if (isBusy) return; // what was thrown throws as it is looked at
      isBusy = true;
      try {
        const { id, path } = core.pageNow();
        if (page !== (page = id ?? path)) said = [];
        const told = describe(error, event);
        const { name, message, stack, file, line, column } = told;
        const mark = [name, message, file, line, column].join();
        if (said.length >= MOST || said.includes(mark) || ignore.test(`${name}: ${message}\n${stack ?? file}`)) return;
        said.push(mark);
        core.track("Error", { ...more, ...told });
      } catch {
        // Nobody would want to hear of it.
      } finally {
        isBusy = false;
      }
    };

    reports.push(report);
    addEventListener("error", (event) => {
      if (event.message || event.error) report(event.error, { handled: false }, event);
    });
    addEventListener("unhandledrejection", (event) => report(event.reason, { handled: false }));
  };
}

/** An event `Error` for what the page has caught. Nothing happens before `client.use(captureErrors())`. */
export function captureError(error: unknown, properties?: Properties): void {
  for (const report of reports) report(error, { ...properties, handled: true });
}

function describe(error: unknown, { message: heard, filename, lineno, colno }: Partial<ErrorEvent>) {
  const given = error as Partial<Error> | null | undefined; // or anything else
  const name = clean(() => given!.name, 100) || "Error";
  const message =
    clean(() => given!.message, MOST_MESSAGE_CHARS) ||
    clean(() => (given == null && heard) || inWords(error), MOST_MESSAGE_CHARS) ||
    clean(() => heard, MOST_MESSAGE_CHARS);
  const stack = clean(() => given!.stack, MOST_STACK_CHARS) || undefined;
  // "at f (https://…/app.js:1:2)" or "f@https://…/app.js:1:2"
  const [, file, line, column] = /([^\s(@]+):(\d+):(\d+)\)?$/m.exec(stack ?? "") ?? [];
  return {
    name,
    message,
    stack,
    file: clean(() => filename || file, MOST_MESSAGE_CHARS) || undefined,
    line: lineno || (line ? +line : undefined),
    column: colno || (column ? +column : undefined),
    // All that a browser says of the script of another site, unless that is loaded with `crossorigin`.
    ...(heard === "Script error." && !error && { isCrossOrigin: true }),
  };
}

/** What was thrown, where it has no message. */
function inWords(value: unknown): string {
  const text = String(value);
  return text === "[object Object]" ? `an object with ${Object.keys(value as object).slice(0, 10).join(", ")}` : text;
}

/** A text without parameters of addresses and what looks like somebody's data; empty where there is none. */
function clean(read: () => unknown, mostChars: number): string {
  try {
    const text = String(read() ?? "").slice(0, 2 * mostChars);
    const short = text.replace(/(\w:\/\/[^\s?#]*)[?#]\S*?(?=(:\d+){0,2}\)?$|\s)/gm, "$1");
    const masked = maskUrl(short).replace(/\b\d{9,}\b(?![./-]\w)/g, "***"); // but in the names of files
    return masked.slice(0, mostChars).replace(/[\ud800-\udbff]$/, ""); // no half of a character
  } catch {
    return "";
  }
}
