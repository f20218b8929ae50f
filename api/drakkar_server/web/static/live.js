"use strict";
// Charts of a service for as long as its page is open, from the counts that its parts load anew.
(() => {
  const MOST = 360;
  const COLORS = ["#2f7be0", "#d9822b"];
  const LINES = { requests: ["answered", "failed"], load: ["at replicas", "waiting"], tokens: ["generated"] };
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const seen = { time: [], requests: [[], []], load: [[], []], tokens: [[]] };
  let before = null;

  const draw = (figure) => {
    const key = figure.dataset.live, box = figure.querySelector(".plot"), data = [seen.time, ...seen[key]];
    if (box.plot) { box.plot.setData(data); return; }
    const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
    box.replaceChildren();
    box.plot = new uPlot({
      width: box.clientWidth || 300, height: 150, axes: [axis, { ...axis, size: 48 }], cursor: { drag: { x: false } },
      scales: { x: { range: (_, low, high) => [Math.min(low, high - 60), high] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
      series: [{}, ...LINES[key].map((label, i) => ({ label, stroke: COLORS[i], width: 1.5, spanGaps: true, points: { show: seen.time.length < 3 } }))],
    }, data, box);
    new ResizeObserver(() => box.clientWidth && box.plot.setSize({ width: box.clientWidth, height: 150 })).observe(box);
  };

  document.body.addEventListener("htmx:afterSettle", (event) => {
    const found = event.detail.target.id === "figures" && document.querySelector("[data-figures]");
    if (!found || !Number(found.dataset.routers)) return;
    const told = {};
    for (const [key, value] of Object.entries(found.dataset)) told[key] = Number(value);
    // A router that starts anew counts from zero.
    const whole = before && told.requests >= before.requests && told.tokens >= before.tokens && told.now > before.now;
    const rate = (key) => (whole ? Math.max(0, told[key] - before[key]) / (told.now - before.now) : null);
    const failed = rate("failed"), all = rate("requests");
    seen.time.push(told.now);
    seen.requests[0].push(all === null ? null : all - failed);
    seen.requests[1].push(failed);
    seen.load[0].push(told.inFlight);
    seen.load[1].push(told.held);
    seen.tokens[0].push(rate("tokens"));
    if (seen.time.length > MOST) for (const line of [seen.time, ...seen.requests, ...seen.load, ...seen.tokens]) line.shift();
    before = told;
    for (const figure of document.querySelectorAll("[data-live]")) draw(figure);
  });
})();
