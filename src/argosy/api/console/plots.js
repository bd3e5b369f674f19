// The live plots of one service, on one time axis and with one cursor. Drawn by uPlot (vendor/), fed from a History.
/* global uPlot */

import { clock, element } from "./dom.js";

const COLOURS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];
const HEIGHT = 150;
const LIMIT_IN_SIGHT = 4;

const fixed = (digits) => (value) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const milliseconds = (value) => {
  if (value === null || value === undefined) return "–";
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
};

// kind: one line per revision, named `kind|revision`; lines: these names of the history.
export const PLOTS = [
  { id: "weights", kind: "weight", unit: "%", show: fixed(0), isStepped: true, top: 100 },
  { id: "ttft", kind: "ttft", unit: "", show: milliseconds, limit: "ttft_seconds" },
  { id: "tpot", kind: "tpot", unit: "", show: milliseconds, limit: "tpot_seconds" },
  { id: "errors", kind: "errors", unit: "%", show: fixed(1) },
  { id: "replicas", lines: ["desired", "ready"], unit: "", show: fixed(0), isStepped: true },
  { id: "queue", lines: ["held", "waiting", "in_flight"], unit: "", show: fixed(0), isStepped: true },
  { id: "requests", kind: "requests", unit: "/s", show: fixed(1) },
  { id: "tokens", kind: "tokens", unit: "/s", show: fixed(0) },
];

/** A board of all plots in `place`. words: (key) → text. */
export class PlotBoard {
  constructor(place, words) {
    this.words = words;
    this.cards = PLOTS.map((plot) => new PlotCard(plot, place));
  }

  /** Draw the newest `span` seconds. slo: the limits of a good request, drawn as a dashed line. */
  draw(history, span, slo) {
    const end = history.times.at(-1) ?? Date.now() / 1000;
    for (const card of this.cards) card.draw(history, [end - span, end], slo, this.words);
  }

  /** Make every plot anew at its next drawing: colours or words have changed. */
  reset() {
    for (const card of this.cards) card.forget();
  }

  remove() {
    for (const card of this.cards) card.remove();
  }
}

class PlotCard {
  constructor(plot, place) {
    this.plot = plot;
    this.figure = element("figure", "plot");
    this.figure.dataset.plot = plot.id;
    this.caption = element("figcaption");
    this.canvas = element("div", "canvas");
    this.figure.append(this.caption, this.canvas);
    place.append(this.figure);
    this.drawn = null;
    this.made = "";
    this.window = [0, 1];
    this.top = 1;
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.canvas);
  }

  draw(history, window, slo, words) {
    const { plot } = this;
    this.window = window;
    const names = plot.kind ? history.names(plot.kind) : plot.lines;
    const limit = plot.limit ? slo?.[plot.limit] : undefined;
    const made = JSON.stringify([names, limit !== undefined]);
    const from = firstAtLeast(history.times, window[0]);
    const times = history.times.slice(from);
    const rows = names.map((name) => history.row(plot.kind ? `${plot.kind}|${name}` : name).slice(from));
    this.top = plot.top ?? topOf(rows, limit);
    if (limit !== undefined) rows.push(times.map(() => limit));
    this.caption.textContent = plot.unit ? `${words(plot.id)} · ${plot.unit}` : words(plot.id);
    this.figure.setAttribute("aria-label", words(plot.id));
    if (made !== this.made) this.make(names, limit, words);
    this.made = made;
    this.drawn.setData([times, ...rows]);
    // Without a cursor the legend shows the newest figures.
    if (this.drawn.cursor.idx === null || this.drawn.cursor.left < 0) this.drawn.setLegend({ idx: times.length - 1 });
  }

  make(names, limit, words) {
    this.drawn?.destroy();
    const { plot } = this;
    const look = getComputedStyle(document.documentElement);
    const colour = (name) => look.getPropertyValue(name).trim();
    const stepped = plot.isStepped ? { paths: uPlot.paths.stepped({ align: 1 }) } : {};
    const lines = names.map((name, index) => ({
      label: plot.kind ? name : words(`line_${name}`),
      stroke: colour(COLOURS[(plot.kind ? revisionIndex(name) : index) % COLOURS.length]),
      width: 2,
      points: { show: false },
      value: (_, value) => plot.show(value),
      ...stepped,
    }));
    if (limit !== undefined) {
      lines.push({
        label: words("limit"), stroke: colour("--soft"), width: 1, dash: [5, 4], points: { show: false },
        value: (_, value) => plot.show(value),
      });
    }
    const axis = {
      stroke: colour("--soft"), font: "11px system-ui, sans-serif",
      grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 },
    };
    this.drawn = new uPlot({
      width: Math.max(200, this.canvas.clientWidth),
      height: HEIGHT,
      scales: {
        x: { time: true, range: () => this.window },
        y: { range: () => [0, this.top] },
      },
      axes: [
        { ...axis, size: 26, space: 70, values: (_, splits) => splits.map(clock) },
        { ...axis, size: 58, space: 28, values: (_, splits) => splits.map((value) => plot.show(value)) },
      ],
      series: [{ label: words("time"), value: (_, value) => (value ? clock(value) : "–") }, ...lines],
      cursor: { sync: { key: "argosy-console" }, drag: { x: false, y: false } },
      legend: { live: true },
    }, [[], ...lines.map(() => [])], this.canvas);
  }

  fit() {
    this.drawn?.setSize({ width: Math.max(200, this.canvas.clientWidth), height: HEIGHT });
  }

  forget() {
    this.made = "";
  }

  remove() {
    this.resized.disconnect();
    this.drawn?.destroy();
    this.figure.remove();
  }
}

/** A revision keeps its colour on every plot, whatever others run beside it. */
export function revisionIndex(revision) {
  const number = Number.parseInt(revision.slice(1), 10);
  return Number.isNaN(number) ? 0 : number - 1;
}

/** The upper end of an axis. A limit far above everything that was measured would press the lines flat: it is left out. */
function topOf(rows, limit) {
  const most = rows.reduce((top, row) => row.reduce((high, value) => Math.max(high, value ?? 0), top), 0);
  return niceTop(limit !== undefined && limit <= LIMIT_IN_SIGHT * most ? Math.max(most, limit) : most);
}

function niceTop(most) {
  if (!(most > 0)) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(most * 1.05));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((top) => top >= most * 1.05);
}

function firstAtLeast(times, start) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < start) low = middle + 1; else high = middle;
  }
  return low;
}
