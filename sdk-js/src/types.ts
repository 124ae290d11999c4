/** What can stand in an event: anything that JSON can say. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined };

export type Properties = { readonly [key: string]: Json | undefined };

/** Event names and their properties: `createClient<{ "Signed Up": { plan: string } }>(…)` checks each call. */
export type EventMap = { readonly [event: string]: Properties };

/** What may be sent to the API, as it goes out. */
export interface Event {
  readonly type: "track" | "identify" | "page" | "screen" | "group" | "alias";
  readonly messageId: string;
  readonly timestamp: string;
  readonly anonymousId: string;
  readonly userId?: string;
  readonly event?: string;
  readonly name?: string;
  readonly groupId?: string;
  readonly previousId?: string;
  readonly properties?: Properties;
  readonly traits?: Properties;
  readonly context: Properties;
}

export interface Options {
  /** The write key: it names the project and grants nothing but to send events to it. */
  readonly key: string;
  /** Where the API is: `https://events.example.com`. */
  readonly host: string;
  /** Where batches go below the host. Default `/v1/batch`; a proxy on your own site may name it otherwise. */
  readonly path?: string;
}
