/** What TypeScript says of calls; that this file type-checks is the test. */
import { createClient } from "../../src/index.js";

interface SignedUp {
  plan: "free" | "pro";
  at?: Date;
}
interface Shop {
  "Signed Up": SignedUp;
  "Item Viewed": { price?: number };
}

export function calls(): void {
  const shop = createClient<Shop>({ key: "k", host: "https://events.example.com" });
  shop.track("Signed Up", { plan: "pro", at: new Date() });
  shop.track("Signed Up", { plan: "pro" }, { timestamp: 0 }, () => undefined);
  shop.track("Item Viewed");
  // @ts-expect-error: a plan must be given
  shop.track("Signed Up");
  // @ts-expect-error: there is no such plan
  shop.track("Signed Up", { plan: "gold" });
  // @ts-expect-error: there is no such event
  shop.track("Signed up", { plan: "pro" });
  // @ts-expect-error: there is no such property
  shop.track("Item Viewed", { prize: 1 });

  const any = createClient({ key: "k", host: "https://events.example.com" });
  any.track("Whatever", { nested: { list: [1, "two", null, new Date()] } });
  any.identify(42);
  any.identify({ plan: "pro" });
  any.page("Docs", "Home", { n: 1 });
  any.page({ n: 1 });
  // @ts-expect-error: JSON can't say it
  any.track("Whatever", { f: () => 1 });
  // @ts-expect-error: a misspelt consent
  any.consent("grant");
}
