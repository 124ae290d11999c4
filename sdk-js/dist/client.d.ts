import type { CallOptions, Consent, EventMap, Events, Options, Plugin, Properties } from "./types.js";
/** What may follow the names and ids of a call. */
export type Rest = [properties?: Properties, options?: CallOptions, callback?: () => void];
export type Traits = [traits?: Properties, options?: CallOptions, callback?: () => void];
/** As `Rest`, for an event whose properties are known: some may have to be there. */
export type RestOf<Known> = {} extends Known ? [properties?: Known, options?: CallOptions, callback?: () => void] : [properties: Known, options?: CallOptions, callback?: () => void];
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
/** On a server, where there is no document, nothing is kept, nothing is sent and nothing fails. */
export declare function createClient<Map extends Events<Map> = EventMap>(options: Options): Client<Map>;
