/** The client for React's components: a place to get it from, something to do once, and a boundary that says its errors. */
import { Component, type FunctionComponentElement, type ProviderProps, type ReactNode } from "react";
import type { Client } from "./client.js";
import type { EventMap, Events } from "./types.js";
export interface ProviderGiven<Map extends Events<Map>> {
    /** Made once, outside of any component. */
    readonly client: Client<Map>;
    readonly children?: ReactNode;
}
/** `<ManyMetricsProvider client={client}>`: the components in it have the client. */
export declare function ManyMetricsProvider<Map extends Events<Map> = EventMap>({ client, children, }: ProviderGiven<Map>): FunctionComponentElement<ProviderProps<Client | undefined>>;
/** The client of the provider around; without one nothing is sent, and the console says so. */
export declare function useManyMetrics<Map extends Events<Map> = EventMap>(): Client<Map>;
/** Runs once for each time that the component is put on the page, which StrictMode and renders don't change. */
export declare function useOnce<Map extends Events<Map> = EventMap>(run: (client: Client<Map>) => void): void;
export interface BoundaryGiven {
    /** What is shown instead of what failed. `again` shows the children again. */
    readonly fallback?: ReactNode | ((error: unknown, again: () => void) => ReactNode);
    readonly children?: ReactNode;
}
/** An event `Error` for what its children throw as they render, with `componentStack`; it needs `captureErrors()`. */
export declare class ErrorBoundary extends Component<BoundaryGiven, {
    readonly failed: readonly unknown[];
}> {
    state: {
        failed: unknown[];
    };
    static getDerivedStateFromError(error: unknown): {
        failed: unknown[];
    };
    componentDidCatch(error: unknown, { componentStack }: {
        componentStack?: string | null;
    }): void;
    render(): ReactNode;
}
