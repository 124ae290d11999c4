import type { EventMap, Options, Plugin, Properties } from "./types.js";
export declare const VERSION = "0.1.0";
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
export declare function createClient<Events extends EventMap = EventMap>(options: Options): Client<Events>;
