export { createClient, VERSION, type Client } from "./client.js";
export type { CallOptions, Core, EventMap, Json, Options, Plugin, Properties } from "./types.js";
