/** From a call to an event in the queue: who, where, in which session, and whether the person agreed. */
import { campaignOf } from "./campaign.js";
import { CONSENT, defaultConsent, forgetAll } from "./consent.js";
import { envelope } from "./envelope.js";
import { uuid } from "./id.js";
import { Identity } from "./identity.js";
import { stringify } from "./json.js";
import { Page } from "./page.js";
import { Queue } from "./queue.js";
import { Sender } from "./sender.js";
import { Session } from "./session.js";
import { Store } from "./storage.js";
import { isRefusal, post } from "./transport.js";
import type { CallOptions, Consent, Event, Options, Properties } from "./types.js";

export const isBrowser = typeof document === "object";
const MOST_PENDING = 1_000; // events before a person has answered

/** An event as its call says it. */
export type Draft = Pick<Event, "type"> & Partial<Event>;

export class Recorder {
  private readonly _store = new Store();
  private readonly _session = new Session(this._store);
  private readonly _queue: Queue;
  readonly sender: Sender;
  private _choice!: Consent;
  isDenied = true;
  private _pending: (() => void)[] = [];
  private _release: (() => void) | undefined;
  readonly identity = new Identity(this._store);
  readonly page = new Page();

  constructor(private readonly _options: Options) {
    const url = _options.host.replace(/\/$/, "") + (_options.path ?? "/v1/batch");
    this._queue = new Queue(this._store, `mm.queue.${_options.key}.`);
    this.sender = new Sender(this._queue, async (batch, isLast) => {
      const body = envelope(_options.key, batch, this._queue.dropped);
      const outcome = await post(url, body, !!_options.gzip && !isLast);
      if (isRefusal(outcome.status)) console.warn(`${url} refuses events (${outcome.status}): wrong write key?`);
      return outcome;
    });
    if (isBrowser) this._decide((this._store.read(CONSENT) || defaultConsent(_options)) as Consent);
  }

  /** `page`: what stands in the event's `context.page`. */
  put(draft: Draft, options: CallOptions | undefined, page: Properties): void {
    if (this.isDenied) return;
    const now = Date.now();
    const put = (): void => {
      try {
        this._put(draft, options, page, now);
      } catch {
        // What waits behind it is not to be lost with it.
      }
    };
    if (this._choice !== "pending") put();
    else if (this._pending.length < MOST_PENDING) this._pending.push(put);
    else this._queue.dropped++;
  }

  renew(): void {
    this.identity.renew();
    this._session.renew();
  }

  /** What the person says; it is remembered. */
  choose(choice: Consent): void {
    this._store.isShut = false;
    this._store.write(CONSENT, choice);
    this._decide(choice);
    this.identity.set({}); // what it was told before
    this.identity.keep();
  }

  // --- what becomes of the page ---

  /** A held lock would keep the page out of the back-forward cache. */
  gone(): void {
    this.sender.handOver();
    this._release?.();
  }

  /** Out of the back-forward cache. */
  back(): void {
    this._queue.resume();
    this._store.isShut = false;
    this._decide((this._store.read(CONSENT) ?? this._choice) as Consent);
    this.identity.look();
  }

  /** Another tab wrote something. */
  changed({ key, newValue: value }: StorageEvent): void {
    if (key === CONSENT && value) this._decide(value as Consent);
    else this.identity.look();
  }

  // --- parts ---

  private _decide(choice: Consent): void {
    const held = this._pending;
    this._choice = choice;
    const isRefused = choice !== "granted" && choice !== "pending"; // whatever else it is
    this.isDenied = isRefused && choice !== "anonymous";
    this._store.isShut = false;
    if (isRefused) forgetAll(this._store);
    this._store.isShut = choice !== "granted";
    if (isRefused) this.renew();
    this._live();
    if (choice === "pending") return;
    this._pending = [];
    if (this.isDenied) this._queue.clear();
    else for (const put of held) put();
  }

  private _live(): void {
    if (this._store.isShut) return;
    this._release?.();
    this._release = this._queue.live();
    void this._queue.adopt().then(() => this._queue.waiting && this.sender.wake());
  }

  private _put(draft: Draft, options: CallOptions | undefined, page: Properties, now: number): void {
    const { user } = this.identity;
    const place = this._session.next(now, campaignOf(page["search"] as string | undefined));
    if (place.n === 1) this.identity.keep();
    const shared = {
      anonymousId: this.identity.anonymousId,
      context: {
        page,
        sessionId: place.id,
        campaign: place.campaign,
        groupId: user.group || undefined,
      },
    };
    const isAction = /track|page|screen/.test(draft.type);
    const properties = isAction && user.properties ? { ...user.properties, ...draft.properties } : draft.properties;
    const event = {
      messageId: uuid(now),
      timestamp: +new Date(options?.timestamp ?? now),
      ...(user.id && { userId: user.id }),
      ...draft,
      properties: properties as Properties,
      context: { sessionSequence: place.n, ...options?.context },
    };
    if (!this._options.before) return this._keep(event, shared);
    const seen = this._options.before({ ...shared, ...event, context: { ...shared.context, ...event.context } });
    if (seen) this._keep(seen, { anonymousId: seen.anonymousId, context: {} });
  }

  private _keep(event: object, shared: object): void {
    this._queue.put(stringify(event), stringify(shared));
    this.sender.wake();
  }
}
