// @ts-check
// What the page shows of its events. All that comes from an event is put there as text, never as HTML: an event's name is
// whatever anybody sent.
(() => {
  const MOST_LINES = 50;
  const GIVE_UP_MS = 60_000;
  const SAME_MOMENT_MS = 500; // between a call and the time that the SDK gives its event
  /** On AWS a row is there minutes later, and only Athena sees it: the page shows the way up to there. */
  const isHosted = document.body.classList.contains("hosted");
  const ALL_STAGES = /** @type {const} */ (["kept", "sent", "accepted", "row"]);
  const STAGES = ALL_STAGES.slice(0, isHosted ? 3 : 4);

  /**
   * @typedef {typeof ALL_STAGES[number]} Stage
   * @typedef {{ type: string, event?: string, name?: string, messageId?: string, timestamp?: number | string,
   *   anonymousId?: string, userId?: string, properties?: object, context?: { page?: { path: string, search: string } } }} Event
   * @typedef {Record<string, string | number>} Row
   * @typedef {{ event: Event, anonymousId: string, at: Partial<Record<Stage, number>>, trouble: string, tries: number,
   *   batch?: Record<string, any>, row?: Row, element: HTMLDetailsElement }} Line
   */

  const page = /** @type {any} */ (window);
  /** @type {(id: string) => any} */
  const find = (id) => document.getElementById(id);
  /** The lines whose event has been seen with its id. @type {Map<string, Line>} */
  const lines = new Map();
  /** Those that are not sent yet, oldest first: only the batch tells their ids. @type {Line[]} */
  let unnamed = [];
  let anonymousId = "";

  // --- what is seen of an event -------------------------------------------------------------------------

  /**
   * An event is kept in this browser, and not sent yet. The buttons of this page call it, since they know; whoever is told
   * of every event may call it too, with its messageId.
   * @param {Event} event
   */
  function onKept(event) {
    if (!isSending()) return;
    const line = newLine(event, Date.now());
    if (event.messageId) lines.set(event.messageId, line);
    else unnamed.push(line);
    show(line);
  }

  /** @param {any} seen */
  function onSeen(seen) {
    if (seen.kind === "sent") for (const event of seen.batch.batch) onSent(event, seen);
    else for (const id of seen.ids) onAnswered(lines.get(id), seen);
    lookSoon();
  }

  /** @param {Event} event @param {{ at: number, batch: Record<string, any> }} seen */
  function onSent(event, { at, batch }) {
    const id = String(event.messageId);
    const line = lines.get(id) ?? claim(event) ?? newLine(event, new Date(event.timestamp ?? at).getTime());
    lines.set(id, line);
    line.event = event;
    line.anonymousId = anonymousId = String(event.anonymousId || batch.anonymousId || "");
    line.batch = { ...batch, batch: [event] };
    line.at.sent ??= at;
    line.tries++;
    line.trouble = "";
    show(line);
    showSql();
  }

  /** The line of a button's own event, now that it has an id. @param {Event} event */
  function claim(event) {
    const at = new Date(event.timestamp ?? 0).getTime();
    const line = unnamed.find(
      (one) => titleOf(one.event) === titleOf(event) && Math.abs((one.at.kept ?? 0) - at) < SAME_MOMENT_MS,
    );
    unnamed = unnamed.filter((one) => one !== line);
    return line;
  }

  /** @param {Line | undefined} line @param {{ at: number, status?: number }} answer */
  function onAnswered(line, { at, status }) {
    if (!line || line.at.accepted) return;
    if (status === 200) onAccepted(line, at);
    else if (status && status < 500 && ![408, 425, 429].includes(status)) line.trouble = `refused: ${status}`;
    else line.trouble = `${status ?? "no answer"}: kept, and tried again`;
    show(line);
  }

  /** @param {Line} line @param {number} at */
  function onAccepted(line, at) {
    line.at.accepted = at;
    if (isHosted) find("said").textContent = `${titleOf(line.event)} is accepted, after ${secondsTo(line, "accepted")}`;
  }

  /** @param {Row[]} rows */
  function onRows(rows) {
    const now = Date.now();
    for (const row of rows) {
      const line = lines.get(String(row.message_id));
      if (!line || line.row) continue;
      Object.assign(line, { row, trouble: "" });
      line.at.accepted ??= now;
      line.at.row = now;
      show(line);
      find("said").textContent = `${titleOf(line.event)} is a row of the table, after ${secondsTo(line, "row")}`;
    }
    showAnswer(rows);
  }

  // --- looking for rows, only while an event waits for its own ------------------------------------------

  let isLooking = false;

  function waiting() {
    const since = Date.now() - GIVE_UP_MS;
    return [...lines.values()].filter(({ at }) => at.accepted && !at.row && at.accepted > since);
  }

  function lookSoon() {
    if (isHosted || isLooking || !waiting().length) return;
    isLooking = true;
    setTimeout(look, 300);
  }

  async function look() {
    try {
      const [first] = waiting();
      const answer = await fetch(`/sample/rows?anonymous_id=${encodeURIComponent(first?.anonymousId ?? anonymousId)}`);
      if (answer.ok) onRows((await answer.json()).rows);
    } catch {
      // The server is away: the events wait, and so do we.
    }
    isLooking = false;
    for (const line of lines.values()) {
      if (!line.at.accepted || line.at.row || line.trouble || Date.now() - line.at.accepted < GIVE_UP_MS) continue;
      line.trouble = "no row yet: see dead_letters";
      show(line);
    }
    lookSoon();
  }

  // --- lines --------------------------------------------------------------------------------------------

  /** @param {Event} event @param {number} at @returns {Line} */
  function newLine(event, at) {
    const element = document.createElement("details");
    const summary = element.appendChild(document.createElement("summary"));
    summary.append(make("span", "name"), ...STAGES.map((stage) => make("span", `lamp ${stage}`)));
    element.append(make("div", "inside"));
    /** @type {Line} */
    const line = { event, anonymousId, at: { kept: at }, trouble: "", tries: 0, element };
    element.addEventListener("toggle", () => showInside(line));
    element.dataset.at = String(at);
    const shown = /** @type {HTMLElement[]} */ ([...find("lines").children]);
    find("lines").insertBefore(element, shown.find((one) => Number(one.dataset.at) <= at) ?? null);
    find("lines").children[MOST_LINES]?.remove();
    return line;
  }

  /** @param {Line} line */
  function show(line) {
    const [summary] = line.element.getElementsByTagName("summary");
    const [name, ...lamps] = /** @type {HTMLElement[]} */ ([...(summary?.children ?? [])]);
    name?.replaceChildren(make("b", "", titleOf(line.event)), make("small", line.trouble && "bad", line.trouble || about(line)));
    STAGES.forEach((stage, place) => showLamp(line, stage, lamps[place]));
    line.element.dataset.state = line.row ? "row" : line.trouble ? "trouble" : "way";
    if (line.element.open) showInside(line);
  }

  /** @param {Line} line @param {Stage} stage @param {HTMLElement | undefined} lamp */
  function showLamp(line, stage, lamp) {
    if (!lamp) return;
    const isDone = line.at[stage] !== undefined;
    const next = STAGES.find((one) => line.at[one] === undefined);
    const state = isDone ? "done" : stage !== next ? "off" : line.trouble ? "bad" : "on";
    if (lamp.dataset.state === state) return;
    lamp.dataset.state = state;
    const said = { done: `${stage}, after ${secondsTo(line, stage)}`, on: `not yet ${stage}`, off: "", bad: `not ${stage}: ${line.trouble}` };
    lamp.replaceChildren(make("i"), make("span", "after", isDone ? secondsTo(line, stage) : ""), make("span", "unseen", said[state]));
  }

  /** What was sent, and the row that it became. @param {Line} line */
  function showInside(line) {
    const inside = line.element.lastElementChild;
    if (!inside || !line.element.open) return;
    const sent = make("div", "", make("h3", "", "What was sent"));
    sent.append(make("pre", "", line.batch ? JSON.stringify(line.batch, withoutKey, 2) : "Not sent yet: it is kept in this browser."));
    const row = make("div", "if-here", make("h3", "", "Its row in the table"));
    row.append(line.row ? rowTable(line.row) : make("p", "small", "Not there yet."));
    inside.replaceChildren(sent, row);
  }

  /** @param {Row} row */
  function rowTable(row) {
    const table = document.createElement("table");
    for (const [column, value] of Object.entries(row)) {
      table.insertRow().append(make("th", "", column), make("td", "", String(value)));
    }
    return table;
  }

  /** @param {string} name @param {unknown} value */
  function withoutKey(name, value) {
    return name === "writeKey" ? "wk_…" : value;
  }

  /** @param {Event} event */
  function titleOf(event) {
    if (event.type === "track") return String(event.event);
    return event.name || { page: "Page view", identify: "Identify" }[event.type] || event.type;
  }

  /** @param {Line} line */
  function about({ event, tries, batch }) {
    const { path = "", search = "" } = event.context?.page ?? batch?.context?.page ?? {};
    const where = event.type === "page" ? path + search : event.type === "identify" ? event.userId : "";
    const given = Object.entries(event.properties ?? {}).filter(([, value]) => value !== undefined);
    const fields = given.map(([name, value]) => `${name} ${JSON.stringify(value)}`);
    return [event.type, tries > 1 && `sent ${tries} times`, where, ...fields].filter(Boolean).join(" · ");
  }

  /** @param {Line} line @param {Stage} stage */
  function secondsTo({ at }, stage) {
    return `${(Math.max(0, (at[stage] ?? 0) - (at.kept ?? 0)) / 1_000).toFixed(1)} s`;
  }

  /** @param {string} tag @param {string} [className] @param {(string | Node)[]} inside */
  function make(tag, className, ...inside) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...inside); // a string becomes text
    return element;
  }

  // --- SQL ----------------------------------------------------------------------------------------------

  const COLUMNS = ["event_time", "type", "event", "user_id", "properties"];

  function showSql() {
    const id = anonymousId.replaceAll("'", "''");
    // Athena has many databases, and bills what is read: a day's files, not all.
    const [table, span] = isHosted ? [`${find("sql").dataset.database}.events`, "\nAND received_at > current_timestamp - INTERVAL '1' DAY"] : ["events", ""];
    const sql = `SELECT ${COLUMNS.join(", ")}\nFROM ${table}\nWHERE anonymous_id = '${id}'${span}\nORDER BY event_time`;
    const inShell = sql.replaceAll("\n", " ").replace(/["\\$`]/g, "\\$&");
    find("sql").textContent = sql;
    find("command").textContent = `${find("command").dataset.query} "${inShell}"`;
  }

  /** @param {Row[]} rows newest first */
  function showAnswer(rows) {
    const sorted = [...rows].sort((one, other) => (String(one.event_time) < String(other.event_time) ? -1 : 1));
    find("rows").replaceChildren(
      ...sorted.map((row) => make("tr", "", ...COLUMNS.map((column) => make("td", "", String(row[column] ?? ""))))),
    );
    find("count").textContent = `Its answer, of the last day: ${rows.length} row${rows.length === 1 ? "" : "s"}`;
    const answer = find("rows").closest(".answer");
    answer.scrollTop = answer.scrollHeight;
  }

  /** @param {HTMLButtonElement} button */
  async function copy(button) {
    const from = find(button.dataset.copy ?? "");
    try {
      await navigator.clipboard.writeText(from.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1_500);
    } catch {
      getSelection()?.selectAllChildren(from); // to be copied by hand
    }
  }

  // --- the shop -----------------------------------------------------------------------------------------

  /** A call of the SDK, as any page makes it. @param {Event} event @param {unknown[]} given */
  function call(event, ...given) {
    page.manymetrics?.[event.type](...given);
    onKept(event);
  }

  function isSending() {
    return Boolean(page.manymetrics && page.manymetrics.anonymousId() !== "");
  }

  /** Prices. @type {number[]} */
  let cart = [];

  function showCart() {
    const total = cart.reduce((sum, price) => sum + price, 0);
    find("cart").textContent = cart.length ? `${cart.length} in the cart: €${total.toFixed(2)}` : "The cart is empty.";
    find("buy").disabled = !cart.length;
    find("buy").dataset.mmTotal = total;
    find("buy").dataset.mmItems = cart.length;
  }

  function showPage() {
    const isAbout = location.pathname.endsWith("/about");
    find("goods").hidden = isAbout;
    find("about").hidden = !isAbout;
    document.title = isAbout ? "About us · ManyMetrics" : "A small shop · ManyMetrics";
    for (const link of document.querySelectorAll("nav a")) {
      if (link.getAttribute("href") === location.pathname) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** The SDK takes another path for a page view. */
  function onOtherPage() {
    showPage();
    onKept({ type: "page" });
  }

  /** What the button's attributes make the SDK say of a click. @param {HTMLElement} button */
  function onOwnClick({ dataset }) {
    const { mmEvent = "", mmProduct: product, mmPrice: price, mmTotal: total, mmItems: items } = dataset;
    onKept({ type: "track", event: mmEvent, properties: { product, price, total, items } });
  }

  for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#goods button"))) {
    button.addEventListener("click", () => {
      onOwnClick(button);
      cart.push(Number(button.dataset.mmPrice));
      showCart();
    });
  }
  find("buy").addEventListener("click", () => {
    onOwnClick(find("buy"));
    cart = [];
    setTimeout(showCart); // what it says of this order is read first
  });
  find("form").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const properties = { plan: find("form").elements.plan.value };
    call({ type: "track", event: "Signed Up", properties }, "Signed Up", properties);
  });
  find("identify").addEventListener("click", () => call({ type: "identify" }, "u-1"));
  find("flush").addEventListener("click", () => page.manymetrics?.flush());
  find("cut").addEventListener("change", (/** @type {any} */ { target }) => {
    page.sampleTraffic.isCut = target.checked;
    find("cut-off").hidden = !target.checked;
    if (!target.checked) page.manymetrics?.flush();
  });
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      if (link.hasAttribute("aria-current")) return;
      history.pushState(null, "", link.getAttribute("href"));
      onOtherPage();
    });
  }
  addEventListener("popstate", onOtherPage);
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-copy]"))) {
    button.addEventListener("click", () => copy(button));
  }

  // --- the start ----------------------------------------------------------------------------------------

  function showNotice() {
    const [text, button] = find("notice").children;
    find("notice").hidden = isSending();
    text.textContent = page.manymetrics
      ? "Your browser says that you don't want to be tracked (Global Privacy Control), so nothing is sent."
      : "The browser SDK did not load: does a content blocker keep it out?";
    button.hidden = !page.manymetrics;
    button.onclick = () => {
      page.manymetrics.consent("granted");
      call({ type: "page" });
      showNotice();
    };
  }

  page.sampleTraffic.seen.forEach(onSeen);
  page.sampleTraffic.look = onSeen;
  anonymousId = page.manymetrics?.anonymousId() ?? "";
  showPage();
  showSql();
  showNotice();
  if (!lines.size) onKept({ type: "page" }); // mm.js begins with a page view
})();
