export { createClient, type Client, type Rest, type RestOf, type Traits } from "./client.js";
export type { CallOptions, Consent, Core, Event, EventMap, Events, Json, Options, Plugin, Properties, } from "./types.js";
