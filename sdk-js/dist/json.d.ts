/** JSON of an event that a page filled. What can't be said at all takes its properties with it, and not the event. */
export declare function stringify(event: object): string;
