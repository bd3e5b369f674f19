// One answer on the page: streams text into it, then shows how fast it was and why it ended.
// Text becomes text nodes only; nothing a model writes is ever parsed as HTML.

import { ApiError, streamChat } from "./api.js";

/** Build the card of one answer. `words` gives the word of a key in the current language. */
export function answerCard(model, words) {
  const card = element("article", "answer");
  card.append(element("div", "who", model), element("div", "text"));
  card.setAttribute("aria-busy", "true");
  return { card, text: card.querySelector(".text"), words };
}

/**
 * Stream the answer to `body` into the view. Returns {text, error}: what the model said, and the error if it failed.
 * Times are measured here, from sending the request; tokens are the server's own count.
 */
export async function streamInto(view, body, key, signal, afterText) {
  const clock = { sent: performance.now(), first: null, last: null, pieces: 0 };
  const result = { text: "", finish: null, usage: null, error: null };
  try {
    for await (const event of streamChat(body, key, signal)) {
      if (event.text) {
        clock.last = performance.now();
        clock.first ??= clock.last;
        clock.pieces += 1;
        result.text += event.text;
        view.text.append(event.text);
        afterText();
      }
      result.finish = event.finish ?? result.finish;
      result.usage = event.usage ?? result.usage;
    }
  } catch (error) {
    if (error.name === "AbortError") result.finish = "abort";
    else result.error = error;
  }
  view.card.setAttribute("aria-busy", "false");
  renderText(view.text, result.text);
  showFigures(view, result, clock);
  if (result.error) showProblem(view, result.error);
  afterText();
  return result;
}

/** Tokens per second after the first token, as every benchmark counts it; null if there was only one. */
export function tokensPerSecond(tokens, clock) {
  if (tokens < 2 || clock.last <= clock.first) return null;
  return ((tokens - 1) * 1000) / (clock.last - clock.first);
}

function showFigures(view, result, clock) {
  if (clock.first === null && !result.finish) return;
  const { words } = view;
  const row = element("div", "figures");
  const tokens = result.usage?.completion_tokens ?? clock.pieces;
  const rate = clock.first === null ? null : tokensPerSecond(tokens, clock);
  const show = (name, value, unit) => {
    const figure = element("span");
    figure.dataset.figure = name;
    figure.append(element("b", "", value), ` ${unit}`);
    row.append(figure);
  };
  if (rate !== null) show("tokens-per-second", rate.toFixed(1), words("tokensPerSecond"));
  if (clock.first !== null) show("first-token", `${Math.round(clock.first - clock.sent)} ms`, words("firstToken"));
  show("tokens", String(tokens), words("tokens"));
  if (result.usage) show("prompt-tokens", String(result.usage.prompt_tokens), words("promptTokens"));
  if (result.finish) show("finish", result.finish, words("finish"));
  row.append(element("span", "space"));
  view.card.append(row);
  view.figures = row;
}

function showProblem(view, error) {
  const isTold = error instanceof ApiError && error.code !== "cut_off";
  const message = isTold ? error.message : view.words(error instanceof ApiError ? "cutOff" : "unreachable");
  const problem = element("div", "problem", error.code && isTold ? `${message} (${error.code})` : message);
  problem.setAttribute("role", "alert");
  view.card.append(problem);
}

/** Replace the streamed text by the same text with its fenced code in blocks. */
function renderText(node, text) {
  const parts = text.split(/^```[^\n]*\n?/m);
  if (parts.length < 2) return;
  node.replaceChildren(
    ...parts.map((part, index) => (index % 2 ? element("pre", "", part.replace(/\n$/, "")) : part.trim())),
  );
}

export function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}
