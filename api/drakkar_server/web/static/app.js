"use strict";
(() => {
  const root = document.documentElement;
  const kept = localStorage.getItem("theme");
  if (kept) root.dataset.theme = kept;
  document.getElementById("theme")?.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });

  // What changes in the cluster arrives as events; parts of the page then load themselves anew.
  const chip = document.getElementById("live");
  const say = (text, on) => { if (chip) { chip.textContent = text; chip.classList.toggle("on", on); } };
  let due = null;
  const changed = () => {
    htmx.trigger(document.body, "changed");
    if (due === null) due = setTimeout(() => { due = null; window.drakkarCharts.refresh(); }, 2000);
  };
  const url = document.body.dataset.stream;
  if (url) {
    let stream = null, away = null;
    const follow = () => {
      stream = new EventSource(url);
      stream.onopen = () => say("live", true);
      stream.onerror = () => {
        say("reconnecting", false);
        // After a refusal, such as while the cluster is away, a browser does not try again by itself.
        if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
      };
      for (const kind of ["job", "service", "gone"]) stream.addEventListener(kind, changed);
      stream.addEventListener("cluster", (event) => {
        const now = JSON.parse(event.data).away_since !== null;
        if (now !== away && (away !== null || now)) { htmx.trigger(document.body, "away"); changed(); }
        away = now;
        say(now ? "cluster away" : "live", !now);
      });
      stream.addEventListener("end", () => { stream.close(); say("ended", false); });
    };
    follow();
    addEventListener("pagehide", () => stream.close());
  } else say("", false);
  window.drakkarCharts.refresh();
  document.getElementById("smoothing")?.addEventListener("input", window.drakkarCharts.refresh);

  // Logs of one rank at a time; the oldest lines go when there are many.
  const box = document.getElementById("logs");
  if (box) {
    const MOST = 5000;
    const out = document.getElementById("log"), state = document.getElementById("log-state");
    let lines = [], stream = null;
    const open = () => {
      stream?.close();
      lines = [];
      out.textContent = "";
      state.textContent = "loading…";
      stream = new EventSource(`${box.dataset.logs}?rank=${document.getElementById("rank").value}`);
      stream.addEventListener("pod", (e) => { state.textContent = JSON.parse(e.data).pod; });
      stream.addEventListener("lines", (e) => {
        lines = lines.concat(JSON.parse(e.data)).slice(-MOST);
        out.textContent = lines.join("\n");
        if (document.getElementById("follow").checked) out.scrollTop = out.scrollHeight;
      });
      stream.addEventListener("end", (e) => { state.textContent = JSON.parse(e.data).detail; stream.close(); });
      stream.onerror = () => { if (!lines.length) { state.textContent = "There is no log of this rank now."; stream.close(); } };
    };
    document.getElementById("open-log").addEventListener("click", open);
    addEventListener("pagehide", () => stream?.close());
  }

  document.querySelector("[data-compare]")?.addEventListener("click", (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    const ticked = [...document.querySelectorAll("#jobs input:checked")].slice(0, 6);
    location.assign("/compare?" + ticked.map((t) => `job=${encodeURIComponent(t.value)}`).join("&"));
  }, true);

  // Ticks outlive a table that loads itself anew.
  let ticks = [];
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id === "jobs") ticks = [...document.querySelectorAll("#jobs input:checked")].map((t) => t.value);
  });
  document.body.addEventListener("htmx:afterSettle", () => {
    for (const tick of document.querySelectorAll("#jobs input")) if (ticks.includes(tick.value)) tick.checked = true;
    ticks = [];
  });

  // Keys: / to search, g then a letter to go somewhere.
  const places = { o: "/", j: "/jobs", h: "/history", q: "/queues", n: "/nodes", s: "/services", u: "/usage", c: "/jobs/new" };
  let going = false;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    if (event.key === "/") { const field = document.querySelector("[data-hotkey='/']"); if (field) { event.preventDefault(); field.focus(); } }
    else if (going && places[event.key]) location.assign(places[event.key]);
    going = event.key === "g";
  });
})();
