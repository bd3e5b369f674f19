// The server's OpenAI API as this page needs it: the list of models, and one chat answer as a stream of events.
// Addresses are relative, so that the page also works behind a prefix.

export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export async function listModels(key) {
  const response = await fetch("v1/models", { headers: headers(key) });
  if (!response.ok) throw await errorOf(response);
  return (await response.json()).data;
}

/**
 * Stream one chat completion. Yields {text}, {finish}, {usage}; throws ApiError.
 * Aborting `signal` ends the request on the server, too.
 */
export async function* streamChat(body, key, signal) {
  const response = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(key) },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await errorOf(response);
  let isDone = false;
  for await (const data of serverSentEvents(response.body)) {
    if (data === "[DONE]") { isDone = true; break; }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(response.status, chunk.error.message, chunk.error.reason);
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (chunk.usage) yield { usage: chunk.usage };
  }
  if (!isDone) throw new ApiError(0, "", "cut_off");
}

/** The data of each server-sent event. Source: WHATWG HTML, "Interpreting an event stream". */
async function* serverSentEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (waiting + value).split(/\r?\n/);
      waiting = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) yield line.slice(5).trimStart();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function errorOf(response) {
  let message = `${response.status} ${response.statusText}`;
  let code = "";
  try {
    const body = await response.json();
    message = body.error?.message ?? body.message ?? message;
    code = body.error?.reason ?? "";
  } catch {
    // Not JSON (a proxy's page, say): the status line is all there is to tell.
  }
  return new ApiError(response.status, message, code);
}
