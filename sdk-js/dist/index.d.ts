export { createClient, type Client } from "./client.js";
export { VERSION } from "./envelope.js";
export type { CallOptions, Consent, Core, Event, EventMap, Json, Options, Plugin, Properties, } from "./types.js";
