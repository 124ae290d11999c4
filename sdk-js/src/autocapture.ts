/**
 * What happens on a page without a line of code for it: page views, also of apps that load no pages, what was clicked,
 * which forms were filled in, and how long a page was looked at.
 */
import { watchClicks, type Click } from "./autocapture/clicks.js";
import { deadClicks } from "./autocapture/dead.js";
import { watchForms } from "./autocapture/forms.js";
import { later } from "./autocapture/later.js";
import { watchLeave } from "./autocapture/leave.js";
import { safely } from "./autocapture/listen.js";
import { watchPages, type Part } from "./autocapture/pages.js";
import { rageClicks } from "./autocapture/rage.js";

import type { Core, Plugin } from "./types.js";

/** All is on, unless it is `false`. */
export interface AutocaptureOptions {
  /** Page views: what of the address must change for another. Default `"path"`. */
  readonly pages?: Part | false;
  /**
   * `Page Left`, each time the page is hidden, turns into another or goes: `engagedMs` and `durationMs` since the last,
   * `scrollDepth` in percent. So a page view's times are sums over its `context.page.id`, its depth is the greatest.
   */
  readonly leave?: boolean;
  /** `Element Clicked`, or what the element's `data-mm-event` says. */
  readonly clicks?: boolean;
  /** `Form Submitted` and `Field Changed`. */
  readonly forms?: boolean;
  /** `Rage Click`: three within a second at one place. */
  readonly rage?: boolean;
  /** `Dead Click`: nothing happened for 2.5 seconds. */
  readonly dead?: boolean;
}

const MARK = Symbol.for("manymetrics.autocapture");

/** `client.use(autocapture())`. A page is captured once, by the first client that asks. */
export function autocapture(options: AutocaptureOptions = {}): Plugin {
  return (core) => {
    const page = window as unknown as Record<symbol, boolean>;
    if (page[MARK]) return;
    page[MARK] = true;
    const begin = safely(() => start(core, options));
    // A page that is made ready before anybody asked for it may never be seen.
    if ((document as { prerendering?: boolean }).prerendering) document.addEventListener("prerenderingchange", begin);
    else begin();
  };
}

function start(core: Core, { pages = "path", leave, clicks, forms, rage, dead }: AutocaptureOptions): void {
  const wait = later();
  const left = leave === false ? undefined : watchLeave(core);
  const view = (): void => {
    if (pages) core.page();
    left?.begin(core.pageNow());
  };
  const turn = (): void => {
    wait.flush();
    left?.end();
  };
  const settle = watchPages(pages || "path", turn, view);
  core.onLeave(
    safely(() => {
      wait.flush();
      settle();
      left?.report();
    }),
  );
  // After the client, which looks who is there now; `listen` would be before it.
  addEventListener("pageshow", safely(({ persisted }: PageTransitionEvent) => void (persisted && view())));

  const parts: ((click: Click) => void)[] = [];
  if (clicks !== false) parts.push(({ _element, _tell }) => _element && _tell("Element Clicked"));
  if (rage !== false) parts.push(rageClicks());
  if (dead !== false) parts.push(deadClicks());
  if (parts.length) watchClicks(core, wait, parts);
  if (forms !== false) watchForms(core, wait);
}
