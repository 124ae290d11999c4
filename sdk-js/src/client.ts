/** What a page calls. Nothing here throws: the host page must not notice. */
import { readCall } from "./calls.js";
import { isBrowser, Recorder, type Draft } from "./recorder.js";
import type { CallOptions, Consent, EventMap, Events, Options, Plugin, Properties } from "./types.js";

/** What may follow the names and ids of a call. */
export type Rest = [properties?: Properties, options?: CallOptions, callback?: () => void];
export type Traits = [traits?: Properties, options?: CallOptions, callback?: () => void];
/** As `Rest`, for an event whose properties are known: some may have to be there. */
export type RestOf<Known> = {} extends Known
  ? [properties?: Known, options?: CallOptions, callback?: () => void]
  : [properties: Known, options?: CallOptions, callback?: () => void];

/** Each call is an event; it is kept before the microtask ends, and sent until the API has it. */
export interface Client<Map extends Events<Map> = EventMap> {
  track<Name extends keyof Map & string>(event: Name, ...rest: RestOf<Map[Name]>): void;
  identify(userId: string | number, ...rest: Traits): void;
  identify(...traits: Traits): void;
  page(category: string, name: string, ...rest: Rest): void;
  page(name: string, ...rest: Rest): void;
  page(...rest: Rest): void;
  screen(category: string, name: string, ...rest: Rest): void;
  screen(name: string, ...rest: Rest): void;
  screen(...rest: Rest): void;
  group(groupId: string | number, ...rest: Traits): void;
  /** `userId` is from now on who was known as `previousId`: by default the user or the browser of before. */
  alias(userId: string | number, previousId?: string | number, options?: CallOptions, callback?: () => void): void;
  /** These stand in the properties of each event from now on, until `reset()`. */
  register(properties: Properties): void;
  /** Somebody else sits here now: a new anonymous id, no user, a new session. */
  reset(): void;
  /** What the person agreed to. It is remembered. */
  consent(choice: Consent): void;
  /** Sends what waits, unless the API asked to wait. Resolves when the answer is there. */
  flush(): Promise<void>;
  /** Adds what a plugin does: `client.use(autocapture())`. */
  use(plugin: Plugin): void;
  /** The id of this browser; empty on a server and where consent is denied. */
  anonymousId(): string;
}

type Methods = { [Name in keyof Client]: (...given: never[]) => unknown };

/** On a server, where there is no document, nothing is kept, nothing is sent and nothing fails. */
export function createClient<Map extends Events<Map> = EventMap>(options: Options): Client<Map> {
  const methods = methodsOf(new Recorder(options)) as Record<string, (...given: never[]) => unknown>;
  for (const name in methods) methods[name] = harmless(methods[name]!);
  return methods as unknown as Client<Map>;
}

function methodsOf(recorder: Recorder): Methods {
  const { identity, page } = recorder;
  const leaving: (() => void)[] = [];

  /** The event of a call, and then its callback. `draft` is given the names or ids that the call begins with. */
  const put = (given: unknown[], leading: number, draft: (...texts: string[]) => Draft): void => {
    const { texts, fields, options, callback } = readCall(given, leading);
    const event = draft(...texts);
    const name = /identify|group/.test(event.type) ? "traits" : "properties";
    recorder.put({ ...event, ...(fields && { [name]: fields }) }, options, page.seen(event.type === "page"));
    if (callback) queueMicrotask(callback);
  };
  const view = (type: "page" | "screen", given: unknown[]): void =>
    put(given, 0, (...texts) => {
      const [name, category] = texts.reverse();
      return { type, name, category } as Draft; // JSON leaves out what is undefined
    });

  const methods = {
    track: (...given: unknown[]) => put(given, 1, (event) => ({ type: "track", event: event! })),
    identify: (...given: unknown[]) =>
      put(given, 1, (id) => {
        if (id) identity.set({ id });
        return { type: "identify" };
      }),
    page: (...given: unknown[]) => view("page", given),
    screen: (...given: unknown[]) => view("screen", given),
    group: (...given: unknown[]) =>
      put(given, 1, (group) => {
        identity.set({ group: group! });
        return { type: "group", groupId: group! };
      }),
    alias: (...given: unknown[]) =>
      put(given, 2, (id, previous) => {
        const previousId = previous || identity.user.id || identity.anonymousId;
        identity.set({ id: id! });
        return { type: "alias", previousId };
      }),
    register: (properties: Properties) =>
      identity.set({ properties: { ...identity.user.properties, ...properties } }),
    reset: () => recorder.renew(),
    consent: (choice: Consent) => recorder.choose(choice),
    flush: () => recorder.sender.flush(),
    use: (plugin: Plugin) =>
      isBrowser &&
      plugin({
        track: methods.track,
        page: () => methods.page(),
        pageNow: () => page.seen(),
        onLeave: (run) => void leaving.push(harmless(run)),
      }),
    anonymousId: () => (recorder.isDenied ? "" : identity.anonymousId),
  };

  if (!isBrowser) return methods;
  const leave = (): void => leaving.forEach((run) => run());
  on("pagehide", () => {
    leave();
    recorder.gone();
  });
  on("pageshow", (event) => (event as PageTransitionEvent).persisted && recorder.back());
  on("visibilitychange", () => {
    if (document.visibilityState === "visible") return recorder.sender.look();
    leave();
    recorder.sender.handOver();
  });
  on("online", () => recorder.sender.flush());
  on("storage", (event) => recorder.changed(event as StorageEvent));
  return methods;
}

function on(name: string, run: (event: Event) => unknown): void {
  addEventListener(name, harmless(run));
}

function harmless<Given extends unknown[], Result>(run: (...given: Given) => Result) {
  return (...given: Given): Result | undefined => {
    try {
      return run(...given);
    } catch {
      // Losing an event is better than breaking the page.
    }
  };
}
