/**
 * How long a page was looked at, and how far. `Page Left` is told when the page turns into another, is hidden or goes,
 * each time with what came since the last: a hidden page may come back, or be gone without a word. So the times of a
 * page view are the sums of its events', its depth the greatest.
 */
import type { Core, Properties } from "../types.js";
import { listen } from "./listen.js";

const IDLE_MS = 30_000; // without a sign of somebody: what is longer isn't counted
const LEAST_MS = 100;
const SIGNS = "pointermove pointerdown keydown wheel focus blur visibilitychange";

export interface Leave {
  /** A page view has begun. */
  readonly begin: (page: Properties) => void;
  /** What is new of it. */
  readonly report: () => void;
  readonly end: () => void;
}

export function watchLeave(core: Core): Leave {
  let page: Properties | undefined;
  let told = false;
  let since = 0;
  let engaged = 0;
  let last = 0;
  let isHere = false;
  let scroller: Element | null = null;
  let depth = 0;

  const tick = (): void => {
    const now = performance.now();
    if (isHere) engaged += Math.min(now - last, IDLE_MS);
    last = now;
    isHere = document.visibilityState === "visible" && document.hasFocus();
  };
  const root = (): Element | null => document.scrollingElement ?? document.documentElement;
  const look = (): void => {
    const seen = scroller ?? root();
    if (!seen) return;
    const { scrollTop, clientHeight, scrollHeight } = seen;
    depth = Math.max(depth, Math.min(100, Math.round((100 * (scrollTop + clientHeight)) / scrollHeight)) || 0);
  };
  const report = (): void => {
    tick();
    if (!page || (told && engaged < LEAST_MS)) return;
    look();
    const properties = { engagedMs: Math.round(engaged), durationMs: Math.round(last - since), scrollDepth: depth };
    core.track("Page Left", properties, { context: { page } });
    told = true;
    engaged = 0;
    since = last;
  };

  for (const sign of SIGNS.split(" ")) listen(sign as keyof WindowEventMap, tick);
  listen("scroll", ({ target }) => {
    tick();
    const scrolled = target instanceof Element ? target : root();
    if (!scrolled || scrolled.clientHeight * 2 < innerHeight) return;
    // What an app scrolls is often an element that fills the window, and the document itself is seen from the start.
    if (scrolled !== (scroller ?? root())) depth = 0;
    scroller = scrolled;
    look();
  });
  return {
    begin: (viewed) => {
      page = viewed;
      told = false;
      tick();
      engaged = 0;
      since = last;
      scroller = null;
      depth = 0;
    },
    report,
    end: () => {
      report();
      page = undefined;
    },
  };
}
