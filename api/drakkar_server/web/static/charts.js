"use strict";
// Charts of metrics by step. Points come downsampled from the server.
(() => {
  const POINTS = 500;
  const COLORS = ["#2f7be0", "#d9822b", "#2a9d5c", "#b84bb8", "#c23b3b", "#5c7f92"];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const smoothed = (values, weight) => {
    if (!weight) return values;
    let last = null;
    return values.map((v) => (v == null ? null : (last = last == null ? v : last * weight + v * (1 - weight))));
  };

  // Runs of different steps on one axis: every step that any has, holes where one has none.
  const aligned = (series, weight) => {
    const steps = [...new Set(series.flatMap((points) => points.map((p) => p.step)))].sort((a, b) => a - b);
    return [steps, ...series.map((points) => {
      const at = new Map(points.map((p) => [p.step, p.value]));
      return smoothed(steps.map((s) => (at.has(s) ? at.get(s) : null)), weight);
    })];
  };

  const draw = (box, names, series, weight) => {
    if (!series.some((points) => points.length)) {
      box.replaceChildren(Object.assign(document.createElement("p"), { className: "muted", textContent: "No points yet." }));
      return;
    }
    const data = aligned(series, weight);
    if (box.plot) { box.plot.setData(data); return; }
    box.replaceChildren();
    const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
    box.plot = new uPlot({
      width: box.clientWidth || 400, height: 210, scales: { x: { time: false } }, axes: [axis, { ...axis, size: 64 }],
      series: [{ label: "step" }, ...names.map((label, i) => ({ label, stroke: COLORS[i % COLORS.length], width: 1.5, spanGaps: true, points: { show: data[0].length < 40 } }))],
    }, data, box);
    new ResizeObserver(() => box.clientWidth && box.plot.setSize({ width: box.clientWidth, height: 210 })).observe(box);
  };

  const points = async (base, metric) => {
    const answer = await fetch(`${base}/metrics/${encodeURIComponent(metric)}?points=${POINTS}`);
    if (answer.status === 404) return [];
    if (!answer.ok) throw new Error((await answer.json()).detail);
    return answer.json();
  };

  const load = async (figure, runs) => {
    const box = figure.querySelector(".plot");
    const weight = Number(document.getElementById("smoothing")?.value || 0);
    try {
      const metric = figure.dataset.metric;
      const series = await Promise.all(runs.map(([, base]) => points(base, metric)));
      draw(box, runs.map(([name]) => name), series, weight);
    } catch (error) {
      if (!box.plot) box.replaceChildren(Object.assign(document.createElement("p"), { className: "bad-text", textContent: error.message }));
    }
  };

  const refresh = () => {
    for (const box of document.querySelectorAll("[data-metrics]"))
      for (const figure of box.querySelectorAll("[data-metric]")) load(figure, [[figure.dataset.metric, box.dataset.metrics]]);
    for (const box of document.querySelectorAll("[data-compare-runs]")) {
      const runs = box.dataset.compareRuns.trim().split(" ").filter(Boolean).map((key) => [key, `/api/v1/history/jobs/${key}`]);
      for (const figure of box.querySelectorAll("[data-metric]")) load(figure, runs);
    }
  };
  window.drakkarCharts = { refresh };
})();
