export { createClient, VERSION, type Client } from "./client.js";
export type { EventMap, Json, Options, Properties } from "./types.js";
