/** Which campaign led here, as the page's address says it. */
import type { Properties } from "./types.js";

export type Campaign = Properties;

/** The names in the address and in `context.campaign`. */
const UTM = "campaign source medium term content id".split(" ");
/** What advertisers add to their links. The first that is there stands in `clickIdName` and `clickId`. */
const CLICK_IDS = "gclid gbraid wbraid fbclid msclkid ttclid twclid li_fat_id".split(" ");

/** `context.campaign` for a query string; undefined where it names none. */
export function campaignOf(search: string | undefined): Campaign | undefined {
  if (!search) return undefined;
  const given = new URLSearchParams(search);
  let campaign: Campaign | undefined;
  for (const name of UTM) {
    const value = given.get("utm_" + name);
    if (value) campaign = { ...campaign, [name === "campaign" ? "name" : name]: value.slice(0, 200) };
  }
  const clickIdName = CLICK_IDS.find((name) => given.get(name));
  if (clickIdName) campaign = { ...campaign, clickIdName, clickId: given.get(clickIdName)!.slice(0, 300) };
  return campaign;
}
