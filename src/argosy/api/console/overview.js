// The list of services: how each is, in one line.

import { element, fillRows, number, percent, phaseBadge, seconds } from "./dom.js";
import { revisionIndex } from "./plots.js";

const COLUMNS = [
  "service", "phase", "replicas", "traffic", "requestRate", "tokenRate", "errorRate", "ttft50", "ttft95", "slo",
];

/** Draw the services of `state` into the table; its head says the columns in the page's language. */
export function drawOverview(table, state, words) {
  const labels = COLUMNS.map(words);
  const head = element("tr");
  head.append(...labels.map((label) => {
    const cell = element("th", "", label);
    cell.scope = "col";
    return cell;
  }));
  table.tHead.replaceChildren(head);
  const loads = new Map((state.top?.services ?? []).map((load) => [load.service, load]));
  const rows = [...state.services.values()].map((service) => rowOf(service, loads.get(service.metadata.name), words));
  fillRows(table.tBodies[0], rows, labels);
}

function rowOf(service, load, words) {
  const { name } = service.metadata;
  const { status } = service;
  const link = element("a", "name", name);
  link.href = `#/services/${encodeURIComponent(name)}`;
  const errors = load && load.requests_per_second > 0 ? load.errors_per_second / load.requests_per_second : null;
  return [
    link,
    phaseBadge(status.phase, words(`phase_${status.phase}`)),
    `${status.ready_replicas} / ${status.desired_replicas}`,
    weightBar(status.revisions),
    load && number(load.requests_per_second),
    load && number(load.generation_tokens_per_second, 0),
    errors === null ? null : percent(errors),
    load && seconds(load.ttft_p50_seconds),
    load && seconds(load.ttft_p95_seconds),
    load && percent(load.slo_good_ratio),
  ];
}

/** Weights as a bar whose parts have the revisions' colours, and as text. */
export function weightBar(revisions) {
  const box = element("span", "weights");
  const shown = revisions.filter((each) => each.weight > 0);
  const bar = element("span", "bar-of-weights");
  bar.setAttribute("aria-hidden", "true");
  bar.append(...shown.map((each) => {
    const part = element("span", `c${revisionIndex(each.revision) % 6}`);
    part.style.flexGrow = each.weight;
    return part;
  }));
  const text = shown.map((each) => `${each.revision} ${each.weight} %`).join(" · ") || "–";
  box.append(bar, element("span", "", text));
  return box;
}

export function drawDevices(table, devices, words) {
  const labels = ["device", "heldBy", "busy"].map(words);
  const head = element("tr");
  head.append(...labels.map((label) => element("th", "", label)));
  table.tHead.replaceChildren(head);
  fillRows(table.tBodies[0], devices.map((each) => [
    each.device.name + (each.device.is_healthy ? "" : ` · ${each.device.message || words("unhealthy")}`),
    each.replicas.join(", ") || words("nobody"),
    each.used_ratio === null ? null : percent(each.used_ratio, 0),
  ]), labels);
}
