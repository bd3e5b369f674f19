// What was seen of each service while this page was open: one row a second, the newest hour. A second in which nothing
// came is a gap in every line: no figure is made up.

const LIMIT = 3_600;
const TRIM = 120;

export class History {
  constructor() {
    this.times = [];
    this.series = new Map();
  }

  /** values: by series name; a known series without a value gets a gap, a weight that is not told is 0. */
  push(at, values) {
    if (this.times.length && at <= this.times.at(-1)) return;
    for (const name of Object.keys(values)) {
      if (!this.series.has(name)) this.series.set(name, this.times.map(() => (isWeight(name) ? 0 : null)));
    }
    this.times.push(at);
    for (const [name, row] of this.series) row.push(values[name] ?? (isWeight(name) ? 0 : null));
    if (this.times.length > LIMIT + TRIM) {
      this.times.splice(0, TRIM);
      for (const row of this.series.values()) row.splice(0, TRIM);
    }
  }

  gap(at) {
    if (!this.times.length || at <= this.times.at(-1)) return;
    this.times.push(at);
    for (const row of this.series.values()) row.push(null);
  }

  row(name) {
    return this.series.get(name) ?? this.times.map(() => null);
  }

  /** The names after `kind|`, in their natural order. */
  names(kind) {
    const found = [...this.series.keys()].filter((name) => name.startsWith(`${kind}|`));
    return found.map((name) => name.slice(kind.length + 1)).sort(byNumber);
  }
}

const isWeight = (name) => name.startsWith("weight|");

export function byNumber(one, other) {
  return one.localeCompare(other, "en", { numeric: true });
}

/** One row of a service's history from what /v1/top and the service's status say. */
export function rowOf(load, service, replicas) {
  const row = {
    ready: service?.status.ready_replicas ?? null,
    desired: service?.status.desired_replicas ?? null,
    held: load.num_requests_held,
    in_flight: load.num_requests_in_flight,
    waiting: sumKnown(replicas.map((replica) => replica.num_requests_waiting)),
  };
  for (const each of load.by_revision) {
    row[`weight|${each.revision}`] = each.weight;
    row[`ttft|${each.revision}`] = each.ttft_p95_seconds;
    row[`tpot|${each.revision}`] = each.tpot_p50_seconds;
    row[`requests|${each.revision}`] = each.requests_per_second;
    row[`tokens|${each.revision}`] = each.generation_tokens_per_second;
    row[`errors|${each.revision}`] = each.requests_per_second > 0
      ? Math.min(100, 100 * each.errors_per_second / each.requests_per_second) : null;
  }
  return row;
}

function sumKnown(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
}
