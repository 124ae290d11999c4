/**
 * Events from the moment they are tracked until the API has them.
 *
 * Each tab has a list of its own in localStorage, written before the microtask ends, so a crash loses none. A Web Lock
 * says that the tab is alive; the list of one that isn't is taken over by the next tab that starts. An event leaves the
 * list when the API has accepted it (or refused it for good), so one that was handed over as the page went away is sent
 * again, with the same messageId and `attempt` counted up, and the server keeps one.
 */
import { uuid } from "./id.js";
import type { Store } from "./storage.js";
import type { Event } from "./types.js";

const PREFIX = "mm.queue.";
export const MAX_EVENTS = 1_000;
export const MAX_CHARS = 1_000_000; // of the 5 million that a site's pages share

/** What is kept of an event; the names are short, since they are written with each. */
interface Entry {
  /** JSON of the event. */
  readonly e: string;
  /** How often it was handed over to the network. */
  n: number;
}

export interface Batch {
  readonly events: readonly string[];
  readonly entries: readonly Entry[];
}

export class Queue {
  private readonly _key = PREFIX + uuid();
  private _entries: Entry[] = [];
  private _chars = 0;
  private _willSave = false;
  /** How many events had no room since this was last reported. */
  dropped = 0;

  constructor(private readonly _store: Store) {}

  get length(): number {
    return this._entries.length;
  }

  put(event: Event): void {
    this._add({ e: JSON.stringify(event), n: 0 });
    this._saveSoon();
  }

  /** The oldest events whose texts take no more than so many characters together; the first in any case. */
  take(maxChars: number, maxEvents = 500): Batch {
    const entries: Entry[] = [];
    let chars = 0;
    for (const entry of this._entries) {
      chars += entry.e.length + 20;
      if (entries.length && (chars > maxChars || entries.length >= maxEvents)) break;
      entries.push(entry);
    }
    const events = entries.map(({ e, n }) => (n ? withAttempt(e, n + 1) : e));
    for (const entry of entries) entry.n++;
    this.save();
    return { events, entries };
  }

  /** These are done with. */
  drop(batch: Batch): void {
    const done = new Set(batch.entries);
    this._entries = this._entries.filter((entry) => !done.has(entry));
    this._chars = this._entries.reduce((sum, { e }) => sum + e.length, 0);
    this.save();
  }

  /** Keeps the list as it is now. */
  save(): void {
    this._willSave = false;
    if (this._entries.length) this._store.set(this._key, JSON.stringify(this._entries));
    else this._store.remove(this._key);
  }

  /** Holds the lock that says this tab is alive; returns what lets it go. */
  live(): () => void {
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    locks()?.request(this._key, () => ended).catch(() => undefined);
    return end;
  }

  /** Takes over the lists of tabs that are gone. Resolves to whether there were any. */
  async adopt(): Promise<boolean> {
    const before = this._entries.length;
    for (const key of this._store.keys()) {
      if (key.startsWith(PREFIX) && key !== this._key) await this._adoptFrom(key);
    }
    return this._entries.length > before;
  }

  private async _adoptFrom(key: string): Promise<void> {
    const take = (): void => {
      const kept = read(this._store.get(key));
      this._entries.unshift(...kept);
      this._chars += kept.reduce((sum, { e }) => sum + e.length, 0);
      this._makeRoom();
      this.save(); // before the other list goes: a crash in between leaves both, and the server keeps one of each
      this._store.remove(key);
    };
    const held = locks();
    if (held) await held.request(key, { ifAvailable: true }, (lock) => lock && take()).catch(() => undefined);
    else take();
  }

  private _add(entry: Entry): void {
    this._entries.push(entry);
    this._chars += entry.e.length;
    this._makeRoom();
  }

  /** Drops the oldest, and counts them. */
  private _makeRoom(): void {
    while (this._entries.length > MAX_EVENTS || (this._chars > MAX_CHARS && this._entries.length > 1)) {
      this._chars -= this._entries.shift()!.e.length;
      this.dropped++;
    }
  }

  private _saveSoon(): void {
    if (this._willSave) return;
    this._willSave = true;
    queueMicrotask(() => this._willSave && this.save());
  }
}

function locks(): LockManager | undefined {
  return typeof navigator === "object" ? navigator.locks : undefined;
}

function read(text: string | null): Entry[] {
  try {
    const entries: unknown = JSON.parse(text ?? "[]");
    return Array.isArray(entries) ? entries.filter(({ e, n }) => typeof e === "string" && typeof n === "number") : [];
  } catch {
    return [];
  }
}

/** The event's JSON with `context.attempt`. */
function withAttempt(json: string, attempt: number): string {
  const event = JSON.parse(json) as { context: object };
  return JSON.stringify({ ...event, context: { ...event.context, attempt } });
}
