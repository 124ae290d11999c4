/**
 * Events from the moment they are tracked until the API has them.
 *
 * Each tab has a list of its own in localStorage, written before the microtask ends, so a crash loses none. A Web Lock
 * says that the tab is alive; the list of one that isn't is taken over by the next tab that starts. An event leaves the
 * list when the API has accepted it (or refused it for good), so one that was handed over as the page went away is sent
 * again, with the same messageId and `attempt` counted up, and the server keeps one.
 */
import { uuid } from "./id.js";
import { parse, type Store } from "./storage.js";
import type { Properties } from "./types.js";

export const MAX_EVENTS = 1_000;
export const MAX_BYTES = 1_000_000; // in UTF-8; a site's pages share five million characters

const encoder = new TextEncoder();

interface Entry {
  /** JSON of the event, less what it shares with others. */
  readonly e: string;
  /** JSON of what it shares: `anonymousId` and most of its `context`. */
  readonly s: string;
  /** How often it was handed over to the network. */
  n: number;
  /** Bytes of `e`. */
  readonly b: number;
  /** Whether it is under way in a request that outlives the page. */
  f?: boolean;
}

/** What goes into one request. */
export interface Batch {
  readonly shared: Shared;
  /** JSON of each event. */
  readonly events: readonly string[];
  readonly bytes: number;
  readonly entries: readonly Entry[];
}

export interface Shared {
  readonly anonymousId: string;
  readonly context: Properties;
}

export class Queue {
  private readonly _key: string;
  private _entries: Entry[] = [];
  private _willSave = false;
  private _isKept = false;
  /** How many events were lost since this was last reported: no room, or the API would not have them. */
  dropped = 0;

  /** `_names`: with what the names of its lists begin. A list that is of another write key is none of ours. */
  constructor(
    private readonly _store: Store,
    private readonly _names: string,
  ) {
    this._key = _names + uuid();
  }

  /** How many wait, and are not under way. */
  get waiting(): number {
    return this._entries.filter(({ f }) => !f).length;
  }

  /** Bytes that are under way in requests that outlive the page: while it goes, it may send that much less. */
  get underWay(): number {
    return this._entries.reduce((sum, { f, b }) => (f ? sum + b : sum), 0);
  }

  put(event: string, shared: string): void {
    this._entries.push(entryOf(event, shared, 0));
    this._makeRoom();
    if (this._willSave) return;
    this._willSave = true;
    queueMicrotask(() => this._willSave && this.save());
  }

  /** The oldest that take no more than so many bytes together; the first in any case. */
  take(maxBytes: number): Batch {
    const entries: Entry[] = [];
    let bytes = 0;
    for (const entry of this._entries) {
      if (entry.f) continue;
      bytes += entry.b + 1 + (entry.s === entries[0]?.s ? 0 : entry.s.length);
      if (entries.length && bytes > maxBytes) break;
      entries.push(entry);
    }
    const shared = mostOften(entries.map(({ s }) => s));
    const common = JSON.parse(shared) as Shared;
    const events = entries.map((entry) => whole(entry, shared, common));
    for (const entry of entries) entry.n++;
    this.save();
    return { shared: common, events, bytes, entries };
  }

  /** Whether the batch is in a request that outlives the page. */
  mark(batch: Batch, isUnderWay: boolean): void {
    for (const entry of batch.entries) entry.f = isUnderWay;
  }

  /** These are done with. */
  drop(batch: Batch): void {
    const done = new Set(batch.entries);
    this._entries = this._entries.filter((entry) => !done.has(entry));
    this.save();
  }

  clear(): void {
    this._entries = [];
    this.save();
  }

  /** Keeps the list as it is now. */
  save(): void {
    this._willSave = false;
    const texts = [...new Set(this._entries.map(({ s }) => s))];
    const list = this._entries.map(({ e, s, n }) => [e, texts.indexOf(s), n]);
    if (list.length || this.dropped) {
      this._isKept = this._store.set(this._key, JSON.stringify({ d: this.dropped, s: texts, q: list }));
    } else {
      this._store.remove(this._key);
      this._isKept = false;
    }
  }

  /** Holds the lock that says this tab is alive; returns what lets it go. */
  live(): () => void {
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    this._lock({}, () => ended);
    return end;
  }

  /** The page was frozen, and is back: another may have taken its list over meanwhile. */
  resume(): void {
    if (this._isKept && this._store.get(this._key) === null) this._entries = [];
  }

  /** Takes over the lists of tabs that are gone. Resolves once it has. */
  async adopt(): Promise<void> {
    for (const key of this._store.keys()) {
      if (key.startsWith(this._names) && key !== this._key) {
        await this._lock({ ifAvailable: true }, (lock) => lock && this._adopt(key), key);
      }
    }
  }

  private _adopt(key: string): void {
    const kept = parse(this._store.get(key)) as { d: number; s: string[]; q: [string, number, number][] } | null;
    this._entries.unshift(...(kept?.q ?? []).map(([event, shared, n]) => entryOf(event, kept!.s[shared]!, n)));
    this.dropped += kept?.d ?? 0;
    this._makeRoom();
    this.save(); // before the other list goes: a crash in between leaves both, and the server keeps one of each
    this._store.remove(key);
  }

  /** Runs it without a lock where there are none: two tabs may then send the same, and the server keeps one. */
  private async _lock(options: LockOptions, run: (lock: unknown) => unknown, key = this._key): Promise<void> {
    try {
      await (navigator.locks ? navigator.locks.request(key, options, run) : run(true));
    } catch {
      // A sandboxed frame may hold none.
    }
  }

  /** Drops the oldest, and counts them. */
  private _makeRoom(): void {
    let bytes = this._entries.reduce((sum, { b }) => sum + b, 0);
    while (this._entries.length > MAX_EVENTS || (bytes > MAX_BYTES && this._entries.length > 1)) {
      bytes -= this._entries.shift()!.b;
      this.dropped++;
    }
  }
}

function entryOf(e: string, s: string, n: number): Entry {
  return { e, s, n, b: encoder.encode(e).length };
}

function mostOften(texts: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1])[0]![0];
}

/** The event's JSON with what its batch does not share, and with `attempt`. */
function whole({ e, s, n }: Entry, shared: string, common: Shared): string {
  const isCommon = s === shared;
  if (isCommon && !n) return e;
  const event = JSON.parse(e) as { context: Properties };
  const own = JSON.parse(s) as Shared;
  // What the batch has and the event has not is said to be null: the API would add it.
  const absent = Object.fromEntries(Object.keys(common.context).map((name) => [name, null]));
  const context = { ...(!isCommon && { ...absent, ...own.context }), ...event.context, ...(n && { attempt: n + 1 }) };
  return JSON.stringify({ ...(!isCommon && { anonymousId: own.anonymousId }), ...event, context });
}
