// The control plane's API as this page needs it: the same routes as the command line (docs/control-api.md).
// Addresses are relative, so that the page also works behind a prefix.

const TIMEOUT_MILLISECONDS = 8_000;
const SILENCE_MILLISECONDS = 30_000; // three missed heartbeats of a stream
const MAX_CONFLICTS = 5;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class ControlApi {
  constructor(readKey) {
    this.readKey = readKey;
  }

  service(name) { return this.call("GET", path(name)); }
  top() { return this.call("GET", "v1/top"); }
  why(name) { return this.call("GET", `${path(name)}/why`); }
  async revisions(name) { return (await this.call("GET", `${path(name)}/revisions`)).items; }
  remove(name) { return this.call("DELETE", path(name)); }

  /** Read the service, let `change` write into its spec, and store it; again if somebody else was faster. */
  async modify(name, change) {
    for (let attempt = 1; ; attempt += 1) {
      const service = await this.service(name);
      change(service.spec);
      try {
        return await this.call("PUT", path(name), service);
      } catch (error) {
        if (error.status !== 409 || attempt >= MAX_CONFLICTS) throw error;
      }
    }
  }

  /** Every change of `what` (services, or the events of one), until `signal` aborts. Throws ApiError when it breaks. */
  async* watch(what, signal) {
    const silence = new AbortController();
    const either = AbortSignal.any([signal, silence.signal]);
    let timer = setTimeout(() => silence.abort(), SILENCE_MILLISECONDS);
    try {
      const response = await fetch(what, { headers: this.headers(), signal: either });
      if (!response.ok) throw await errorOf(response);
      for await (const event of serverSentEvents(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MILLISECONDS);
        if (event.name === "error") throw new ApiError(0, JSON.parse(event.data).error?.message ?? "");
        if (event.data) yield JSON.parse(event.data);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async call(method, where, body) {
    const response = await fetch(where, {
      method,
      headers: { ...this.headers(), ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
      signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
    });
    if (!response.ok) throw await errorOf(response);
    return response.json();
  }

  headers() {
    const key = this.readKey();
    return key ? { Authorization: `Bearer ${key}` } : {};
  }
}

function path(name) {
  return `v1/inferenceservices/${encodeURIComponent(name)}`;
}

/** Each event, and each comment as an event without data: a sign of life. Source: WHATWG HTML, server-sent events. */
async function* serverSentEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  let name = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (waiting + value).split(/\r?\n/);
      waiting = lines.pop();
      for (const line of lines) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) yield { name, data: line.slice(5).trimStart() };
        else if (line.startsWith(":")) yield { name: "", data: "" };
        else if (line === "") name = "";
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function errorOf(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    const body = await response.json();
    message = body.error?.message ?? body.message ?? message;
  } catch {
    // Not JSON (a proxy's page, say): the status line is all there is to tell.
  }
  return new ApiError(response.status, message);
}
