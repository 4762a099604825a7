"use strict";
// The front of a sweep: points of (cost, score), the trials that no other beats joined by a line. Everything is in the page itself.
const data = JSON.parse(document.getElementById("points").textContent);
const svg = document.getElementById("front"), told = document.getElementById("told");
const runtimes = document.getElementById("runtime"), costs = document.getElementById("cost");
const NAMES = "http://www.w3.org/2000/svg", LEFT = 70, RIGHT = 20, TOP = 20, BOTTOM = 50;
let width = 0, height = 0;

function draw(kind, attributes, text) {
  const node = document.createElementNS(NAMES, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  svg.append(node);
  return node;
}

// Those of which no other costs as little and is as good; better: whether a is better than b.
function onFront(points, cost, better) {
  const order = [...points].sort((a, b) => a[cost] - b[cost] || (better(a, b) ? -1 : better(b, a) ? 1 : 0));
  const kept = [];
  for (const point of order) if (!kept.length || better(point, kept[kept.length - 1])) kept.push(point);
  return kept;
}

function ticks(low, high) {
  const rough = (high - low) / 7, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(Number(value.toPrecision(8)));
  return found;
}

function span(values) {
  const low = Math.min(...values), high = Math.max(...values), margin = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  return [low - margin, high + margin];
}

// In pixels of the page, so that text and points are as large on a phone as on a desk.
function measure() {
  width = svg.clientWidth || 760;
  height = Math.round(Math.min(420, Math.max(280, 0.6 * width)));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
}

function show() {
  measure();
  const cost = costs.value, wanted = runtimes.value;
  const points = data.points.filter((point) => point[cost] !== null && (wanted === "" || point.runtime === wanted));
  svg.replaceChildren();
  told.textContent = "Point at a trial, or move to it with the Tab key.";
  if (!points.length) {
    told.textContent = "No trial has such a figure.";
    return;
  }
  const better = (a, b) => (data.higher ? a.score > b.score : a.score < b.score);
  const ends = points.flatMap((point) => (cost === "latency" && point.low !== null ? [point.low, point.high] : [point[cost]]));
  const [left, right] = span(ends), [low, high] = span(points.map((point) => point.score));
  const x = (value) => LEFT + ((value - left) / (right - left)) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - TOP - BOTTOM);
  for (const value of ticks(left, right)) {
    draw("line", { x1: x(value), x2: x(value), y1: TOP, y2: height - BOTTOM, class: "rule" });
    draw("text", { x: x(value), y: height - BOTTOM + 18, "text-anchor": "middle" }, String(value));
  }
  for (const value of ticks(low, high)) {
    draw("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: "rule" });
    draw("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, String(value));
  }
  draw("text", { x: (LEFT + width - RIGHT) / 2, y: height - 8, "text-anchor": "middle" }, costs.selectedOptions[0].textContent);
  draw("text", { x: -height / 2, y: 16, "text-anchor": "middle", transform: "rotate(-90)" }, data.heading);
  const front = onFront(points, cost, better);
  draw("polyline", { points: front.map((point) => `${x(point[cost])},${y(point.score)}`).join(" "), class: "line" });
  for (const point of points) {
    if (cost === "latency" && point.low !== null) {
      draw("line", { x1: x(point.low), x2: x(point.high), y1: y(point.score), y2: y(point.score), class: "spread" });
    }
    const kind = point.recommended ? "picked" : front.includes(point) ? "best" : "beaten";
    const node = draw("circle", { cx: x(point[cost]), cy: y(point.score), r: point.recommended ? 8 : 6, class: kind, tabindex: 0 });
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", point.told);
    Object.assign(node.dataset, { trial: point.trial, runtime: point.runtime });
    for (const event of ["pointerenter", "focus"]) node.addEventListener(event, () => (told.textContent = point.told));
  }
}

for (const choice of [runtimes, costs]) choice.addEventListener("change", show);
addEventListener("resize", () => svg.clientWidth !== width && show());
show();
