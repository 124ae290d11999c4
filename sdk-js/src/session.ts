/**
 * A session ends after half an hour without an event. Its id and the number of its events are shared by a site's tabs,
 * so that what never arrived can be counted from the gaps. The campaign that led to it stays with all of its events.
 */
import type { Campaign } from "./campaign.js";
import { uuid } from "./id.js";
import { MOST, numberOf, parse, type Store } from "./storage.js";

const KEY = "mm.session";
export const SESSION_GAP_MS = 30 * 60_000;

export interface Place {
  readonly id: string;
  /** When its last event was. */
  readonly at: number;
  /** The number of that event, from 1. */
  readonly n: number;
  readonly campaign?: Campaign | undefined;
}

export class Session {
  private _last: Place | undefined;

  constructor(private readonly _store: Store) {}

  /** The place of the next event. `campaign`: what the page's address says, which a later one takes the place of. */
  next(now: number, campaign: Campaign | undefined): Place {
    const last = (parse(this._store.read(KEY), MOST) ?? this._last ?? {}) as unknown as Place; // each field may be anything
    const goesOn = numberOf(last.n) > 0 && Math.abs(now - numberOf(last.at)) < SESSION_GAP_MS ? last : { id: uuid(now), n: 0 };
    this._last = { ...goesOn, at: now, n: goesOn.n + 1, ...(campaign && { campaign }) };
    this._store.write(KEY, JSON.stringify(this._last));
    return this._last;
  }

  renew(): void {
    this._last = undefined;
    this._store.erase(KEY);
  }
}
