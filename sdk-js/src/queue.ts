/**
 * Events from the moment they are tracked until the API has them.
 *
 * Each tab has a list of its own in localStorage, written before the microtask ends, so a crash loses none. A Web Lock
 * says that the tab is alive; the list of one that isn't is taken over by the next tab that starts. An event leaves the
 * list when the API has accepted it (or refused it for good), so one that was handed over as the page went away is sent
 * again, with the same messageId and `attempt` counted up, and the server keeps one.
 */
import { uuid } from "./id.js";
import { MOST, numberOf, parse, textOf, type Store } from "./storage.js";
import type { Properties } from "./types.js";

export const MAX_EVENTS = 1_000;
export const MAX_BYTES = 1_000_000; // in UTF-8; a site's pages share five million characters

/** Where the last list that could not be read whole is set aside, or its beginning. */
const BAD = "mm.bad";
const BAD_LENGTH = 10_000;

interface Entry {
  /** JSON of the event, less what it shares with others. */
  readonly _event: string;
  /** JSON of what it shares: `anonymousId` and most of its `context`. */
  readonly _shared: string;
  /** How often it was handed over to the network. */
  _attempts: number;
  /** Bytes of `_event`. */
  readonly _bytes: number;
  /** Whether it is under way in a request that outlives the page. */
  _isUnderWay?: boolean;
}

/** What is stored. Older builds read and wrote it, too, so its names stay. */
interface List {
  readonly d: number;
  readonly s: readonly string[];
  /** Of each event its JSON, the place of what it shares in `s`, and how often it was handed over. */
  readonly q: readonly (readonly (string | number)[])[];
}

/** What goes into one request. */
export interface Batch {
  readonly shared: Shared;
  /** JSON of each event. */
  readonly events: readonly string[];
  readonly bytes: number;
  readonly items: readonly Entry[];
}

export interface Shared {
  readonly anonymousId: string;
  readonly context: Properties;
}

export class Queue {
  private readonly _key: string;
  private _entries: Entry[] = [];
  private _willSave: boolean | undefined;
  private _isKept: boolean | undefined;
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
    return this._entries.filter(({ _isUnderWay }) => !_isUnderWay).length;
  }

  /** Bytes that are under way in requests that outlive the page: while it goes, it may send that much less. */
  get underWay(): number {
    return this._entries.reduce((sum, { _isUnderWay, _bytes }) => (_isUnderWay ? sum + _bytes : sum), 0);
  }

  put(event: string, shared: string): void {
    this._entries.push(entryOf(event, shared, 0));
    this._makeRoom();
    if (!this._willSave) queueMicrotask(() => this._willSave && this.save());
    this._willSave = true;
  }

  /** The oldest that take no more than so many bytes together; the first in any case. */
  take(maxBytes: number): Batch {
    const entries: Entry[] = [];
    let bytes = 0;
    for (const entry of this._entries) {
      if (entry._isUnderWay) continue;
      bytes += entry._bytes + 1 + (entry._shared === entries[0]?._shared ? 0 : entry._shared.length);
      if (entries.length && bytes > maxBytes) break;
      entries.push(entry);
    }
    const shared = entries.map(({ _shared }) => _shared).sort()[entries.length >> 1]!; // what most have, where most have the same
    const common = JSON.parse(shared) as Shared;
    const events = entries.map((entry) => whole(entry, shared, common));
    for (const entry of entries) entry._attempts++;
    this.save();
    return { shared: common, events, bytes, items: entries };
  }

  /** Whether the batch is in a request that outlives the page. */
  mark(batch: Batch, isUnderWay: boolean): void {
    for (const entry of batch.items) entry._isUnderWay = isUnderWay;
  }

  /** These are done with. */
  drop(batch: Batch): void {
    this._entries = this._entries.filter((entry) => !batch.items.includes(entry));
    this.save();
  }

  clear(): void {
    this._entries = [];
    this.save();
  }

  /** Keeps the list as it is now. */
  save(): void {
    this._willSave = false;
    const texts = [...new Set(this._entries.map(({ _shared }) => _shared))];
    const rows = this._entries.map(({ _event, _shared, _attempts }) => [_event, texts.indexOf(_shared), _attempts]);
    this._isKept = (
      rows.length || this.dropped
        ? this._store.write(this._key, JSON.stringify({ d: this.dropped, s: texts, q: rows } satisfies List))
        : this._store.erase(this._key)
    ) as boolean;
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
    if (this._isKept && this._store.read(this._key) === null) this._entries = [];
  }

  /** Takes over the lists of tabs that are gone. Resolves once it has. */
  async adopt(): Promise<void> {
    for (const key of this._store.names()) {
      if (key.startsWith(this._names) && key !== this._key) {
        await this._lock({ ifAvailable: true }, (lock) => lock && this._adopt(key), key);
      }
    }
  }

  /** An entry that `save` did not write would stop or spoil each batch that it is in, so it is left out and counted. */
  private _adopt(key: string): void {
    const text = this._store.read(key);
    if (!text) return; // another tab was quicker, where there are no locks
    const { d: dropped, s: texts, q } = (parse(text) ?? {}) as Partial<List>; // or anything
    const good: Entry[] = [];
    const rows = ([] as unknown[]).concat(q); // what is no list is one bad row
    for (const row of rows.slice(-MAX_EVENTS)) {
      try {
        const [event, at, attempts] = row as [string, number, number];
        const shared = texts![at]!;
        if (textOf(parse(shared, MOST)!["anonymousId"]) && parse(event)) {
          good.push(entryOf(event, shared, attempts & 1023));
        }
      } catch {
        // As said above.
      }
    }
    const bad = rows.length - good.length;
    this._entries.unshift(...good);
    this.dropped += bad + +(numberOf(dropped) > 0 && dropped!);
    this._makeRoom();
    this.save(); // before the other list goes: a crash in between leaves both, and the server keeps one of each
    this._store.erase(key);
    if (bad) this._store.write(BAD, text.slice(0, BAD_LENGTH));
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
    let bytes = this._entries.reduce((sum, { _bytes }) => sum + _bytes, 0);
    while (this._entries.length > MAX_EVENTS || (bytes > MAX_BYTES && this._entries.length > 1)) {
      bytes -= this._entries.shift()!._bytes;
      this.dropped++;
    }
  }
}

function entryOf(event: string, shared: string, attempts: number): Entry {
  // In UTF-8; a page's first TextEncoder takes 0.1 ms.
  return { _event: event, _shared: shared, _attempts: attempts, _bytes: unescape(encodeURIComponent(event)).length };
}

/** The event's JSON with what its batch does not share, and with `attempt`. */
function whole({ _event, _shared, _attempts }: Entry, shared: string, common: Shared): string {
  const isCommon = _shared === shared;
  if (isCommon && !_attempts) return _event;
  const event = JSON.parse(_event) as { context: Properties };
  const own = JSON.parse(_shared) as Shared;
  // What the batch has and the event has not is said to be null: the API would add it.
  const absent: Record<string, null> = {};
  for (const name in common.context) absent[name] = null;
  const context = {
    ...(!isCommon && { ...absent, ...own.context }),
    ...event.context,
    ...(_attempts && { attempt: _attempts + 1 }),
  };
  return JSON.stringify({ ...(!isCommon && { anonymousId: own.anonymousId }), ...event, context });
}
