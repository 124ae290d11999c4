// @ts-check
// Looks on as the page's SDK talks to the server. It is loaded before the SDK, and wraps fetch: what is shown are the real
// requests and answers. It changes none of them, but for the switch that cuts the connection.
(() => {
  /**
   * `sent`: a batch goes out. `answered`: with which status, or undefined where nothing came back.
   * @typedef {{ ids: string[], at: number } & ({ kind: "sent", batch: Record<string, any> } | { kind: "answered", status?: number })} Seen
   */
  const traffic = { isCut: false, seen: /** @type {Seen[]} */ ([]), look: (/** @type {Seen} */ _seen) => {} };
  Object.assign(window, { sampleTraffic: traffic });

  /** @param {Seen} one */
  const note = (one) => {
    traffic.seen.push(one);
    traffic.look(one);
  };

  /** @param {BodyInit} body @param {Promise<Response>} answer */
  const follow = async (body, answer) => {
    const at = Date.now();
    const batch = JSON.parse(await new Response(body).text());
    if (!Array.isArray(batch.batch)) return;
    const ids = batch.batch.map((/** @type {any} */ event) => String(event.messageId));
    note({ kind: "sent", ids, at, batch });
    const status = await answer.then(({ status }) => status).catch(() => undefined);
    note({ kind: "answered", ids, at: Date.now(), ...(status && { status }) });
  };

  const send = window.fetch.bind(window);
  window.fetch = (input, init) => {
    if (init?.method !== "POST" || !init.body) return send(input, init);
    const cut = () => Promise.reject(new TypeError("The connection is cut, by the switch on this page."));
    const answer = traffic.isCut ? cut() : send(input, init); // at once: a page may be on its way out
    follow(init.body, answer).catch(() => undefined); // no batch of ours
    return answer;
  };
})();
