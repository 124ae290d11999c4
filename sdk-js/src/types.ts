/** What can stand in an event: anything that JSON can say, and dates, which become its text. */
export type Json = string | number | boolean | null | Date | readonly Json[] | { readonly [key: string]: Json | undefined };

export type Properties = { readonly [key: string]: Json | undefined };

/** Event names and their properties: `createClient<{ "Signed Up": { plan: string } }>(…)` checks each call. */
export type EventMap = { readonly [event: string]: Properties };

/** A map of one's own may be an interface, and so may each event's properties. */
export type Events<Map> = { readonly [Name in keyof Map]: object };

/** What may be sent to the API. */
export interface Event {
  readonly type: "track" | "identify" | "page" | "screen" | "group" | "alias";
  readonly messageId: string;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
  readonly anonymousId: string;
  readonly userId?: string;
  readonly event?: string;
  readonly name?: string;
  readonly category?: string;
  readonly groupId?: string;
  readonly previousId?: string;
  readonly properties?: Properties;
  readonly traits?: Properties;
  readonly context: Properties;
}

/**
 * What a person agreed to.
 *
 * - `granted`: all that is in the README.
 * - `anonymous`: events are sent, and nothing is kept on the device: no cookie, no storage, another id on each page.
 * - `pending`: not asked yet. Events wait in memory, and go out or are forgotten with the answer.
 * - `denied`: nothing is sent and nothing is kept; what was kept is removed.
 */
export type Consent = "granted" | "anonymous" | "pending" | "denied";

export interface Options {
  /** The write key: it names the project and grants nothing but to send events to it. */
  readonly key: string;
  /** Where the API is: `https://events.example.com`. */
  readonly host: string;
  /** Where batches go below the host. Default `/v1/batch`; a proxy on your own site may name it otherwise. */
  readonly path?: string;
  /** What holds until `consent()` is called, which is remembered. Default `granted`. */
  readonly consent?: Consent;
  /** Default true: a browser that says Global Privacy Control is one whose person denied, until they agree here. */
  readonly gpc?: boolean;
  /** Compress what is sent while the page stays. Default false: not every gateway lets binary text through. */
  readonly gzip?: boolean;
  /** Sees each event before it is kept: what it returns is sent; null drops it. */
  readonly before?: (event: Event) => Event | null;
}

/** What a call may say beside its properties. */
export interface CallOptions {
  /** When it was, if not now. */
  readonly timestamp?: Date | string | number;
  /** What stands in the event's context beside what the SDK puts there, or in its place. */
  readonly context?: Properties;
}

/** What a plugin is given: `client.use(plugin)` calls it once. */
export interface Core {
  readonly track: (event: string, properties?: Properties, options?: CallOptions) => void;
  /** A page view, of the page as it is now. */
  readonly page: () => void;
  /** What stands in `context.page` of an event of this moment. */
  readonly pageNow: () => Properties;
  /** `run` is called as the page is hidden or goes away, before what waits is handed over: the last chance to track. */
  readonly onLeave: (run: () => void) => void;
}

export type Plugin = (core: Core) => void;
