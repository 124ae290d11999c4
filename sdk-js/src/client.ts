/** What a page calls. Nothing here throws: the host page must not notice. */
import { uuid } from "./id.js";
import { Identity } from "./identity.js";
import { Queue } from "./queue.js";
import { Sender } from "./sender.js";
import { Session } from "./session.js";
import { openStore } from "./storage.js";
import { post } from "./transport.js";
import type { CallOptions, Event, EventMap, Options, Plugin, Properties } from "./types.js";

export const VERSION = "0.1.0";

/** Each call is an event; it is kept before the microtask ends, and sent until the API has it. */
export interface Client<Events extends EventMap = EventMap> {
  track<Name extends keyof Events & string>(event: Name, properties?: Events[Name]): void;
  identify(userId: string, traits?: Properties): void;
  page(name?: string, properties?: Properties): void;
  screen(name?: string, properties?: Properties): void;
  group(groupId: string, traits?: Properties): void;
  alias(userId: string, previousId?: string): void;
  /** Somebody else sits here now: a new anonymous id, no user, a new session. */
  reset(): void;
  /** Sends what waits, unless the API asked to wait. */
  flush(): Promise<void>;
  /** Adds what a plugin does: `client.use(autocapture())`. */
  use(plugin: Plugin): void;
}

export function createClient<Events extends EventMap = EventMap>(options: Options): Client<Events> {
  if (typeof document === "undefined") return silent();
  const store = openStore();
  const identity = new Identity(store);
  const session = new Session(store);
  const queue = new Queue(store);
  const url = options.host.replace(/\/$/, "") + (options.path ?? "/v1/batch");
  const sender = new Sender(queue, (events) => post(url, envelope(options.key, events, queue)));
  const leaving: (() => void)[] = [];
  let release = queue.live();

  const put = (event: Pick<Event, "type"> & Partial<Event>, options: CallOptions = {}): void => {
    try {
      const now = options.timestamp === undefined ? Date.now() : new Date(options.timestamp).getTime();
      const userId = identity.userId;
      queue.put({
        messageId: uuid(now),
        timestamp: new Date(now).toISOString(),
        anonymousId: identity.anonymousId,
        ...(userId === undefined ? {} : { userId }),
        ...event,
        context: { ...session.next(now), page: pageNow(), ...options.context },
      });
      sender.wake();
    } catch {
      // A value that JSON can't say, mostly. Losing it is better than breaking the page.
    }
  };

  void queue.adopt().then((found) => found && sender.wake());
  const leave = (): void => {
    for (const run of leaving) run();
    sender.leave();
  };
  addEventListener("pagehide", () => {
    leave();
    release(); // a held lock would keep the page out of the back-forward cache
  });
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) release = queue.live();
  });
  addEventListener("visibilitychange", () => document.visibilityState === "hidden" && leave());
  addEventListener("online", () => void sender.flush());

  return {
    track: (event, properties) => put({ type: "track", event, ...(properties && { properties }) }),
    identify: (userId, traits) => {
      identity.identify(userId);
      put({ type: "identify", ...(traits && { traits }) });
    },
    page: (name, properties) => put({ type: "page", ...(name && { name }), ...(properties && { properties }) }),
    screen: (name, properties) => put({ type: "screen", ...(name && { name }), ...(properties && { properties }) }),
    group: (groupId, traits) => put({ type: "group", groupId, ...(traits && { traits }) }),
    alias: (userId, previousId) => {
      const previous = previousId ?? identity.userId ?? identity.anonymousId;
      identity.identify(userId);
      put({ type: "alias", previousId: previous });
    },
    reset: () => {
      identity.reset();
      session.reset();
    },
    flush: () => sender.flush(),
    use: (plugin) =>
      plugin({
        track: (event, properties, options) =>
          put({ type: "track", event, ...(properties && { properties }) }, options),
        page: () => put({ type: "page" }),
        pageNow,
        onLeave: (run) => void leaving.push(run),
      }),
  };
}

/** The body of a request. What all of its events have in common stands in it once. */
function envelope(key: string, events: readonly string[], queue: Queue): string {
  const droppedEvents = queue.dropped;
  const context = {
    library: { name: "manymetrics-js", version: VERSION },
    locale: navigator.language,
    timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    screen: { width: screen.width, height: screen.height },
    userAgent: navigator.userAgent,
    ...(droppedEvents && { droppedEvents }),
  };
  const head = JSON.stringify({ writeKey: key, sentAt: new Date().toISOString(), context });
  return `${head.slice(0, -1)},"batch":[${events.join(",")}]}`;
}

function pageNow(): Properties {
  const { href, pathname, search } = location;
  return { url: href, path: pathname, search, title: document.title, referrer: document.referrer };
}

/** On a server: nothing is sent, nothing fails. */
function silent<Events extends EventMap>(): Client<Events> {
  const nothing = (): void => undefined;
  return {
    track: nothing,
    identify: nothing,
    page: nothing,
    screen: nothing,
    group: nothing,
    alias: nothing,
    reset: nothing,
    flush: () => Promise.resolve(),
    use: nothing,
  };
}
