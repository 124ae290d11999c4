/** A page of React that a test renders on a server, and takes over in a browser in StrictMode, where effects run twice. */
import { createClient } from "@manymetrics/browser";
import { captureErrors } from "@manymetrics/browser/errors";
import { ErrorBoundary, ManyMetricsProvider, useManyMetrics, useOnce } from "@manymetrics/browser/react";
import { StrictMode, useState } from "react";
import { hydrateRoot } from "react-dom/client";

interface Shop {
  "Plan Shown": { plan: string };
  "Plan Chosen": { plan: string };
}

declare const HOST: string;
const client = createClient<Shop>({ key: "wk_react", host: HOST });
client.use(captureErrors());

function Plan({ plan }: { plan: string }) {
  const { track } = useManyMetrics<Shop>();
  useOnce<Shop>((it) => it.track("Plan Shown", { plan }));
  return <button id={plan} onClick={() => track("Plan Chosen", { plan })}>{plan}</button>;
}

function Fragile() {
  const [isBroken, setBroken] = useState(false);
  if (isBroken) throw new RangeError("too much");
  return <button id="break" onClick={() => setBroken(true)}>break</button>;
}

export function App() {
  const [count, setCount] = useState(0);
  return (
    <StrictMode>
      <ManyMetricsProvider client={client}>
        <button id="more" onClick={() => setCount(count + 1)}>{count}</button>
        <Plan plan="pro" />
        {count % 2 === 1 && <Plan plan="free" />}
        <ErrorBoundary fallback={(error, again) => <button id="again" onClick={again}>{String(error)}</button>}>
          <Fragile />
        </ErrorBoundary>
        <ErrorBoundary fallback="nothing here">
          <p id="fine">fine</p>
        </ErrorBoundary>
      </ManyMetricsProvider>
      <Outside />
    </StrictMode>
  );
}

/** Has no provider around it. */
function Outside() {
  const { track, anonymousId } = useManyMetrics();
  return <button id="outside" onClick={() => track("Lost")}>{anonymousId()}</button>;
}

if (typeof document === "object") hydrateRoot(document.getElementById("root")!, <App />);
