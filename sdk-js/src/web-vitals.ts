/**
 * How fast a page was to the person before it: `Web Vitals`, an event of a page load, as its page is hidden or left.
 *
 * Its values are those of the public definitions (web.dev/articles/vitals), in milliseconds but for CLS. What changes
 * when the page is looked at again (INP and CLS may) is sent again, whole, as the next `report` of the same `pageLoadId`,
 * so that the last one counts. A page that comes back from the back-forward cache is a page load of its own.
 */
import { uuid } from "./id.js";
import type { Plugin, Properties } from "./types.js";

/** Up to the first it is good, above the second it is poor. */
const LIMITS = {
  lcp: [2_500, 4_000],
  cls: [0.1, 0.25],
  inp: [200, 500],
  fcp: [1_800, 3_000],
  ttfb: [800, 1_800],
} as const;
const SLOW_MS = 40; // an interaction that took less is counted, and not looked at
const MOST_INTERACTIONS = 10; // the slowest; one in fifty is passed over, so that they are enough for 500

/** What the DOM's types don't know yet, or not of all browsers. */
interface Entry extends PerformanceEntry {
  readonly element?: Element | null;
  readonly target?: Node | null;
  readonly interactionId?: number;
  readonly value?: number;
  readonly hadRecentInput?: boolean;
  readonly sources?: readonly { readonly node: Node | null }[];
}

interface Interaction {
  readonly id: number;
  ms: number;
  readonly element: string | undefined;
}

/** What is known of a page load so far. */
interface Load {
  readonly page: Properties;
  readonly id: string;
  readonly navigation: string | undefined;
  readonly interactionsBefore: number;
  readonly interactions: Interaction[];
  reports: number;
  sent?: string;
  fcp?: number;
  lcp?: number;
  lcpElement?: string | undefined;
  cls: number;
  clsElement?: string | undefined;
  /** Layout shifts that came soon one after another: their sum, the largest of them, the first's and the last's time. */
  shifts: { sum: number; most: number; element: string | undefined; first: number; last: number };
}

/** `client.use(webVitals())`: an event `Web Vitals` of each page load. */
export function webVitals(): Plugin {
  return (core) => {
    if (typeof PerformanceObserver === "undefined") return;
    let hiddenAt = firstHidden();

    const begin = (restored?: true): Load => ({
      page: core.pageNow(),
      id: uuid(),
      navigation: restored ? "back-forward-cache" : navigation()?.type,
      interactionsBefore: restored ? interactionCount() : 0,
      interactions: [],
      reports: 0,
      cls: 0,
      shifts: { sum: 0, most: 0, element: undefined, first: 0, last: 0 },
    });
    let load = begin();

    const painted = ({ name, startTime }: Entry): void => {
      if (name === "first-contentful-paint" && startTime < hiddenAt) load.fcp = sinceActivation(startTime);
    };
    const paintedLargest = ({ startTime, element }: Entry): void => {
      if (startTime >= hiddenAt) return;
      load.lcp = sinceActivation(startTime);
      load.lcpElement = selector(element);
    };
    const shifted = ({ startTime, value = 0, hadRecentInput, sources }: Entry): void => {
      if (hadRecentInput) return;
      let { shifts } = load;
      if (startTime - shifts.last >= 1_000 || startTime - shifts.first >= 5_000 || !shifts.sum) {
        shifts = load.shifts = { sum: 0, most: 0, element: undefined, first: startTime, last: 0 };
      }
      shifts.sum += value;
      shifts.last = startTime;
      if (value > shifts.most) {
        shifts.most = value;
        shifts.element = selector(sources?.find(({ node }) => node)?.node);
      }
      if (shifts.sum > load.cls) {
        load.cls = shifts.sum;
        load.clsElement = shifts.element;
      }
    };
    const interacted = ({ interactionId: id, duration: ms, target }: Entry): void => {
      if (!id) return;
      const { interactions } = load;
      const known = interactions.find((one) => one.id === id);
      if (known) known.ms = Math.max(known.ms, ms);
      else interactions.push({ id, ms, element: selector(target) });
      interactions.sort((one, other) => other.ms - one.ms).splice(MOST_INTERACTIONS);
    };
    const observers = [
      observe("paint", painted),
      observe("largest-contentful-paint", paintedLargest),
      observe("layout-shift", shifted),
      observe("event", interacted),
      observe("first-input", interacted),
    ];

    const inp = (): Partial<Interaction> | undefined => {
      const { interactions, navigation, interactionsBefore } = load;
      const count = interactionCount() - interactionsBefore;
      const slow = interactions[Math.min(interactions.length - 1, Math.floor(count / 50))];
      // There is no first input after the back-forward cache, so a quick one leaves nothing but its number.
      return slow ?? (count && navigation === "back-forward-cache" ? { ms: 8 } : undefined);
    };

    core.onLeave(() => {
      for (const takeAll of observers) takeAll();
      hiddenAt = Math.min(hiddenAt, performance.now());
      const { fcp, lcp, lcpElement, cls, clsElement, navigation, id: pageLoadId, page } = load;
      const { ms, element: inpElement } = inp() ?? {};
      // Without a paint, nobody saw anything shift.
      const values = { lcp, cls: fcp === undefined ? fcp : cls, inp: ms, fcp, ttfb: ttfb(navigation) };
      const properties: Record<string, string | number | undefined> = {};
      for (const name of Object.keys(LIMITS) as (keyof typeof LIMITS)[]) {
        const value = values[name];
        if (value === undefined) continue;
        const [good, poor] = LIMITS[name];
        const digits = name === "cls" ? 10_000 : 1;
        properties[name] = Math.round(value * digits) / digits;
        properties[name + "Rating"] = value <= good ? "good" : value <= poor ? "needs-improvement" : "poor";
      }
      Object.assign(properties, { lcpElement, inpElement, clsElement, navigation });
      const sent = JSON.stringify(properties);
      if (sent === load.sent) return;
      load.sent = sent;
      core.track("Web Vitals", { ...properties, pageLoadId, report: ++load.reports }, { context: { page } });
    });

    addEventListener("pageshow", ({ persisted, timeStamp }) => {
      if (!persisted) return;
      const restored = (load = begin(true));
      // As late as in the second frame, what is there has been painted.
      requestAnimationFrame(() =>
        requestAnimationFrame(() => (restored.fcp = restored.lcp = performance.now() - timeStamp)),
      );
    });
    addEventListener("prerenderingchange", () => {
      if (document.visibilityState === "hidden") hiddenAt = 0; // shown in a tab that nobody sees
    });
  };
}

/** Calls `take` with what was and what will be; returns what calls it with what is already there. */
function observe(type: string, take: (entry: Entry) => void): () => void {
  const takeAll = (entries: PerformanceEntryList): void => entries.forEach(take);
  const observer = new PerformanceObserver((list) => takeAll(list.getEntries()));
  try {
    observer.observe({ type, buffered: true, durationThreshold: SLOW_MS } as PerformanceObserverInit);
  } catch {
    // A browser that doesn't measure it.
  }
  return () => takeAll(observer.takeRecords());
}

function navigation(): PerformanceNavigationTiming | undefined {
  return performance.getEntriesByType("navigation")[0] as PerformanceNavigationTiming | undefined;
}

/** A page that was prerendered begins as it is shown. */
function activatedAt(): number {
  return (navigation() as { activationStart?: number } | undefined)?.activationStart ?? 0;
}

function sinceActivation(time: number): number {
  return Math.max(time - activatedAt(), 0);
}

function ttfb(type: string | undefined): number | undefined {
  if (type === "back-forward-cache") return 0;
  const time = navigation()?.responseStart ?? 0;
  return time > 0 && time < performance.now() ? sinceActivation(time) : undefined; // some browsers say nonsense
}

function interactionCount(): number {
  return (performance as { interactionCount?: number }).interactionCount ?? 0;
}

/** When the page was first hidden: paints after that say nothing about its speed. */
function firstHidden(): number {
  if ((document as { prerendering?: boolean }).prerendering) return Infinity;
  const since = activatedAt();
  const hidden = performance
    .getEntriesByType("visibility-state")
    .find(({ name, startTime }) => name === "hidden" && startTime >= since);
  return hidden?.startTime ?? (document.visibilityState === "hidden" ? 0 : Infinity);
}

/** The element and up to two around it, to the first with an id: `main#shop > div.card > img`. */
function selector(node: Node | null | undefined): string | undefined {
  const parts: string[] = [];
  for (let at = node?.nodeType === 1 ? (node as Element) : node?.parentElement; at && parts.length < 3; ) {
    const id = at.getAttribute("id");
    parts.unshift(at.localName + (id ? `#${id}` : "") + [...at.classList].slice(0, 2).map((name) => `.${name}`).join(""));
    at = id ? null : at.parentElement;
  }
  return parts.join(" > ").slice(0, 100) || undefined;
}
