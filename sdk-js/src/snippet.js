// For the head of a page, inline: takes calls before the script is there, which then makes them, each with its own time.
// The first two values at the end are the site's.
((data, src, script, calls) => {
  if (window.manymetrics) return;
  window.manymetrics = calls;
  for (const name of "track identify page screen group alias register reset consent flush use".split(" "))
    calls[name] = (...given) => {
      calls.push([name, Date.now(), given]);
      return Promise.resolve(); // as flush() does
    };
  Object.assign(script.dataset, data);
  script.src = src;
  document.head.append(script);
})({ key: "wk_...", host: "https://events.your.site" }, "/mm.js", document.createElement("script"), []);
