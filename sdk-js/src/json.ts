/** JSON of an event that a page filled. What can't be said at all takes its properties with it, and not the event. */
export function stringify(event: object): string {
  try {
    return JSON.stringify(event, (_key, value: unknown) => (typeof value === "bigint" ? "" + value : value));
  } catch {
    return JSON.stringify({ ...event, properties: null, traits: null }); // it contains itself, or a getter throws
  }
}
