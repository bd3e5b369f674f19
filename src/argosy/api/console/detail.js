// One service: why it is as it is, its plots, its replicas, its events.

import { ApiError } from "./api.js";
import { $, age, clock, element, fillRows, number, percent, phaseBadge } from "./dom.js";
import { History } from "./history.js";
import { PlotBoard } from "./plots.js";
import { weightBar } from "./overview.js";

const WHY_MILLISECONDS = 5_000;
const RETRY_MILLISECONDS = 2_000;
const MAX_EVENTS = 200;
const REPLICA_COLUMNS = [
  "replica", "revision", "phase", "device", "running", "waiting", "kvCache", "tokenRate", "restarts", "age",
];

export class ServiceView {
  constructor(name, context) {
    this.name = name;
    this.context = context;
    this.closed = new AbortController();
    this.events = new Map();
    this.board = new PlotBoard($("plots"), context.words);
    this.draw();
    this.askWhy();
    this.followEvents();
  }

  close() {
    this.closed.abort();
    clearTimeout(this.whyTimer);
    this.board.remove();
  }

  /** Everything but `why` and events, from the page's state. */
  draw() {
    const { words, state } = this.context;
    const service = state.services.get(this.name);
    $("service-name").textContent = this.name;
    $("service-gone").hidden = Boolean(service) || !state.hasServices;
    for (const button of $("actions").querySelectorAll("button")) button.disabled = !service;
    if (service) this.drawHead(service);
    const slo = service?.spec.scaling.slo;
    this.board.draw(state.histories.get(this.name) ?? new History(), Number($("span").value), slo);
    this.drawReplicas((state.top?.replicas ?? []).filter((each) => each.service === this.name), words);
  }

  redraw() {
    this.board.reset();
    this.draw();
    this.drawEvents();
    this.askWhy();
  }

  drawHead(service) {
    const { words } = this.context;
    const { status, spec } = service;
    $("service-phase").replaceChildren(phaseBadge(status.phase, words(`phase_${status.phase}`)));
    $("service-model").textContent = spec.template.model;
    $("service-weights").replaceChildren(weightBar(status.revisions));
    const rollout = [words(`rollout_${status.rollout.phase}`), status.rollout.message];
    $("service-rollout").textContent = rollout.filter(Boolean).join(" · ");
    $("service-scaling").textContent = status.scaling_message;
    $("act-pause").textContent = words(spec.paused ? "resume" : "pause");
  }

  drawReplicas(replicas, words) {
    const labels = REPLICA_COLUMNS.map(words);
    const head = element("tr");
    head.append(...labels.map((label) => element("th", "", label)));
    $("replicas").tHead.replaceChildren(head);
    $("no-replicas").hidden = replicas.length > 0;
    $("replicas").hidden = replicas.length === 0;
    fillRows($("replicas").tBodies[0], replicas.map((each) => this.replicaRow(each, words)), labels);
  }

  replicaRow({ status, ...load }, words) {
    const phase = element("span");
    phase.append(phaseBadge(status.phase, words(`replica_${status.phase}`)));
    const notes = [status.is_spare ? words("spare") : "", load.is_ejected ? words("ejected") : "", status.reason];
    const told = [...notes.filter(Boolean), status.message].filter(Boolean).join(": ");
    if (told) phase.append(element("span", "note", ` ${told}`));
    const since = status.ready_at ?? status.started_at;
    return [
      status.name, load.revision, phase, status.devices.join(", ") || null,
      show(load.num_requests_running), show(load.num_requests_waiting),
      load.kv_cache_usage_ratio === null ? null : percent(load.kv_cache_usage_ratio, 0),
      load.generation_tokens_per_second === null ? null : number(load.generation_tokens_per_second, 0),
      String(status.restarts),
      since === null ? null : age((this.context.state.top?.at ?? since) - since),
    ];
  }

  async askWhy() {
    clearTimeout(this.whyTimer);
    try {
      const why = await this.context.api.why(this.name);
      if (!this.closed.signal.aborted) drawWhy(why, this.context.words);
    } catch (error) {
      // A service that is gone, or no control plane: both are told where they belong.
      if (!(error instanceof ApiError) || error.status !== 404) $("why-answer").textContent = this.context.words("noWhy");
    }
    if (!this.closed.signal.aborted) this.whyTimer = setTimeout(() => this.askWhy(), WHY_MILLISECONDS);
  }

  async followEvents() {
    const where = `v1/events?watch=true&service=${encodeURIComponent(this.name)}`;
    while (!this.closed.signal.aborted) {
      try {
        for await (const change of this.context.api.watch(where, this.closed.signal)) this.takeEvent(change);
      } catch {
        // The banner tells that the control plane is away; what was seen stays.
      }
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MILLISECONDS); });
    }
  }

  takeEvent({ resource, is_deleted }) {
    if (is_deleted) this.events.delete(resource.metadata.name);
    else this.events.set(resource.metadata.name, resource);
    cancelAnimationFrame(this.eventsFrame);
    this.eventsFrame = requestAnimationFrame(() => this.drawEvents());
  }

  drawEvents() {
    if (this.closed.signal.aborted) return;
    const { words } = this.context;
    const newest = [...this.events.values()].sort((one, other) => other.last_at - one.last_at).slice(0, MAX_EVENTS);
    $("no-events").hidden = newest.length > 0;
    $("events").replaceChildren(...newest.map((event) => {
      const line = element("li", event.kind === "Warning" ? "warning" : "");
      const time = element("time", "", clock(event.last_at));
      time.dateTime = new Date(event.last_at * 1000).toISOString();
      line.append(time, element("b", "", event.reason), element("span", "subject", event.subject));
      line.append(element("span", "message", event.message));
      if (event.count > 1) line.append(element("span", "note", `×${event.count}`));
      if (event.kind === "Warning") line.prepend(element("span", "unseen", words("warning")));
      return line;
    }));
  }
}

const show = (value) => (value === null ? null : String(value));

function drawWhy(why, words) {
  $("why-answer").textContent = why.answer;
  $("why-facts").replaceChildren(...why.facts.map((fact) => element("li", "", fact)));
  $("why-commands").replaceChildren(...why.commands.map((command) => element("code", "", command)));
  const starts = Object.entries(why.start_seconds).map(([replica, parts]) => {
    const text = Object.entries(parts).map(([part, value]) => `${part} ${value.toFixed(2)} s`).join(" · ");
    return element("li", "", `${replica}: ${text}`);
  });
  $("why-starts").replaceChildren(...starts);
  $("why-starts-box").hidden = starts.length === 0;
  $("why-log").textContent = why.log_tail.join("\n");
  $("why-log-box").hidden = why.log_tail.length === 0;
  $("why-log-title").textContent = words("logTail");
}
