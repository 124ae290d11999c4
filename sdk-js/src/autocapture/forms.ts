/** That a form was submitted, and which of its fields were changed: never what stands in them. */
import type { Core } from "../types.js";
import { attribute, isIgnored, matches, read, tell, urlOf, type Raw } from "./element.js";
import type { Later } from "./later.js";
import { listen } from "./listen.js";

const FIELD = "input,select,textarea";
const SECRET = /pass|pwd|secret|card|\bcc|cv[cv]|iban|ssn|otp|one-time/i;

export function watchForms(core: Core, later: Later): void {
  const send = (event: string, raw: Raw): void => {
    const options = { timestamp: Date.now(), context: { page: core.pageNow() } };
    later(() => tell(core, event, raw, options));
  };

  listen("submit", (event) => {
    const path = event.composedPath();
    const form = path[0];
    if (!event.isTrusted || isIgnored(path) || !(form instanceof HTMLFormElement)) return;
    const action = urlOf(attribute(form, "action") ?? "")?.href;
    const method = attribute(form, "method")?.toLowerCase() ?? "get";
    const fieldCount = Reflect.get(HTMLFormElement.prototype, "length", form) as number;
    const raw = read(form, path, false);
    send("Form Submitted", { ...raw, _properties: { ...raw._properties, action, method, fieldCount } });
  });

  listen("change", (event) => {
    const path = event.composedPath();
    const field = path[0];
    if (!event.isTrusted || isIgnored(path) || !matches(field, FIELD)) return;
    const { type } = field as HTMLInputElement;
    const said = ["name", "id", "autocomplete"].map((name) => attribute(field, name)).join(" ");
    if (/password|hidden/.test(type) || SECRET.test(said)) return;
    const raw = read(field, path, false);
    send("Field Changed", { ...raw, _properties: { ...raw._properties, type } });
  });
}
