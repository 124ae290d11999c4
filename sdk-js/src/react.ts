"use client";
/** The client for React's components: a place to get it from, something to do once, and a boundary that says its errors. */
import {
  Component,
  createContext,
  createElement,
  useContext,
  useEffect,
  useRef,
  type FunctionComponentElement,
  type ProviderProps,
  type ReactNode,
} from "react";
import { captureError } from "@manymetrics/browser/errors"; // by its name, so that it is the page's, not a second one
import type { Client } from "./client.js";
import type { EventMap, Events } from "./types.js";

const Context = createContext<Client | undefined>(undefined);

export interface ProviderGiven<Map extends Events<Map>> {
  /** Made once, outside of any component. */
  readonly client: Client<Map>;
  readonly children?: ReactNode;
}

/** `<ManyMetricsProvider client={client}>`: the components in it have the client. */
export function ManyMetricsProvider<Map extends Events<Map> = EventMap>({
  client,
  children,
}: ProviderGiven<Map>): FunctionComponentElement<ProviderProps<Client | undefined>> {
  return createElement(Context.Provider, { value: client as unknown as Client }, children);
}

/** The client of the provider around; without one nothing is sent, and the console says so. */
export function useManyMetrics<Map extends Events<Map> = EventMap>(): Client<Map> {
  return (useContext(Context) ?? nobody()) as unknown as Client<Map>;
}

/** Runs once for each time that the component is put on the page, which StrictMode and renders don't change. */
export function useOnce<Map extends Events<Map> = EventMap>(run: (client: Client<Map>) => void): void {
  const client = useManyMetrics<Map>();
  const isDone = useRef(false);
  useEffect(() => {
    if (isDone.current) return;
    isDone.current = true;
    run(client);
  });
}

export interface BoundaryGiven {
  /** What is shown instead of what failed. `again` shows the children again. */
  readonly fallback?: ReactNode | ((error: unknown, again: () => void) => ReactNode);
  readonly children?: ReactNode;
}

/** An event `Error` for what its children throw as they render, with `componentStack`; it needs `captureErrors()`. */
export class ErrorBoundary extends Component<BoundaryGiven, { readonly failed: readonly unknown[] }> {
  override state = { failed: [] as unknown[] };

  static getDerivedStateFromError(error: unknown): { failed: unknown[] } {
    return { failed: [error] };
  }

  override componentDidCatch(error: unknown, { componentStack }: { componentStack?: string | null }): void {
    captureError(error, { componentStack: componentStack?.slice(0, 1_000) });
  }

  override render(): ReactNode {
    const { children, fallback } = this.props;
    const { failed } = this.state;
    if (!failed.length) return children;
    return typeof fallback === "function" ? fallback(failed[0], () => this.setState({ failed: [] })) : fallback;
  }
}

let isTold = false;

function nobody(): Client {
  if (!isTold) console.warn("ManyMetrics: no <ManyMetricsProvider> around a component that uses it; it sends nothing.");
  isTold = true;
  const nothing = (): unknown => Promise.resolve();
  return new Proxy({}, { get: (_, name) => (name === "anonymousId" ? () => "" : nothing) }) as Client;
}
