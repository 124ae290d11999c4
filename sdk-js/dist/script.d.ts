import { type Client } from "./client.js";
declare global {
    interface Window {
        manymetrics?: Client;
    }
}
