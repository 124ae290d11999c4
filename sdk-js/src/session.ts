/**
 * A session ends after half an hour without an event. Its id and the number of its events are shared by a site's tabs,
 * so that what never arrived can be counted from the gaps.
 */
import { uuid } from "./id.js";
import type { Store } from "./storage.js";

const KEY = "mm.session";
export const SESSION_GAP_MS = 30 * 60_000;

export interface Place {
  readonly sessionId: string;
  readonly sessionSequence: number;
}

export class Session {
  private _last = { id: "", at: 0, n: 0 };

  constructor(private readonly _store: Store) {}

  /** The place of the next event. */
  next(now: number): Place {
    const kept = this._read();
    const goes = kept.id && now - kept.at < SESSION_GAP_MS;
    this._last = goes ? { id: kept.id, at: now, n: kept.n + 1 } : { id: uuid(now), at: now, n: 1 };
    this._store.set(KEY, JSON.stringify(this._last));
    return { sessionId: this._last.id, sessionSequence: this._last.n };
  }

  reset(): void {
    this._last = { id: "", at: 0, n: 0 };
    this._store.remove(KEY);
  }

  private _read(): { id: string; at: number; n: number } {
    try {
      const { id, at, n } = JSON.parse(this._store.get(KEY) ?? "") as Record<string, unknown>;
      if (typeof id === "string" && typeof at === "number" && typeof n === "number") return { id, at, n };
    } catch {
      // Nothing is kept, or somebody else wrote it.
    }
    return this._last;
  }
}
