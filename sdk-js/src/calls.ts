/** The shapes that calls may have, which are those of analytics.js: much may be left out, and a callback may be last. */
import { objectOf } from "./storage.js";
import type { CallOptions, Properties } from "./types.js";

export type Callback = () => void;

export interface Call {
  /** The names or ids that it begins with. */
  readonly texts: string[];
  /** Properties or traits. */
  readonly fields?: Properties | undefined;
  readonly options?: CallOptions | undefined;
  readonly callback?: Callback | undefined;
}

/** `leading`: how many names or ids the call begins with; 0 where any of them may be left out. */
export function readCall(given: readonly unknown[], leading: number): Call {
  const callback = given.find((one) => typeof one === "function") as Callback | undefined;
  const rest = given.filter((one) => one !== callback || !one);
  const texts = leading ? [] : rest.filter((one) => one && !objectOf(one));
  while (texts.length < leading && !objectOf(rest[0])) texts.push(rest.shift()); // identify({ plan: "pro" })
  if (leading > 1 && !rest[1]) rest.unshift(undefined); // alias() has no properties
  const [fields, options] = leading ? rest : rest.filter(objectOf);
  return {
    texts: texts.map((one) => String(one ?? "")), // ids may come as numbers
    fields: fields as Properties | undefined,
    options: options as CallOptions | undefined,
    callback,
  };
}
