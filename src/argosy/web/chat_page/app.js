// The chat page: reads the models, keeps the conversation, sends it, shows the answers.
// State is one object; every change goes through the functions below it. No framework, no build, no network but ours.

import { answerCard, element, streamInto } from "./answer.js";
import { listModels } from "./api.js";
import { toCurl, toPython } from "./snippets.js";
import { applyWords, WORDS } from "./words.js";

const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "repetition_penalty", "seed"];
const EXAMPLES = ["example1", "example2", "example3", "example4"];
const $ = (id) => document.getElementById(id);

const state = {
  language: "en",
  // One history per column: both get what the user says, each its own model's answers.
  histories: [[], []],
  isComparing: false,
  running: null,
  key: sessionStorage.getItem("argosy-key") ?? "",
  shownBody: null,
};
const words = (key) => WORDS[state.language][key];

// --- models and keys ---

async function loadModels() {
  try {
    const models = await listModels(state.key);
    showBanner(models.length ? "" : words("noModels"));
    for (const [index, select] of [$("model-0"), $("model-1")].entries()) {
      select.replaceChildren(...models.map((model) => new Option(model.id, model.id)));
      select.selectedIndex = Math.min(index, models.length - 1);
    }
    $("compare").hidden = models.length < 2;
    $("send").disabled = models.length === 0;
  } catch (error) {
    if (error.status === 401) askForKey();
    else showBanner(error.status ? error.message : words("unreachable"));
  }
}

function askForKey() {
  $("key-input").value = "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

function useKey() {
  if ($("key-dialog").returnValue !== "use") return;
  state.key = $("key-input").value.trim();
  $("key-input").value = "";
  sessionStorage.setItem("argosy-key", state.key);
  loadModels();
}

function showBanner(message) {
  $("banner").textContent = message;
  $("banner").hidden = !message;
}

// --- a turn of the conversation ---

function requestBody(column) {
  const settings = readSettings();
  const messages = [...state.histories[column]];
  if (settings.system) messages.unshift({ role: "system", content: settings.system });
  const body = { model: $(`model-${column}`).value, messages };
  for (const name of NUMBERS) if (settings[name] !== "") body[name] = Number(settings[name]);
  if (settings.stop) body.stop = [settings.stop];
  return body;
}

async function send(text) {
  if (state.running || !text.trim()) return;
  if (!$("settings-form").reportValidity()) return;
  $("welcome").hidden = true;
  const columns = state.isComparing ? [0, 1] : [0];
  const turn = element("section", columns.length > 1 ? "turn two" : "turn");
  const answers = element("div", "answers");
  turn.append(element("div", "said", text), answers);
  $("log").append(turn);
  $("prompt").value = "";
  setRunning(new AbortController());
  for (const history of state.histories) history.push({ role: "user", content: text });
  const results = await Promise.all(columns.map((column) => answer(column, answers)));
  for (const column of [0, 1]) remember(column, results[column] ?? results[0]);
  setRunning(null);
  $("prompt").focus();
  if (results.some((result) => result.error?.status === 401)) askForKey();
}

async function answer(column, place) {
  const body = requestBody(column);
  const view = answerCard(body.model, words);
  place.append(view.card);
  scrollDown(true);
  const result = await streamInto(view, body, state.key, state.running.signal, () => scrollDown(false));
  if (view.figures) addActions(view, body, result);
  return result;
}

/** A failed question leaves no trace in the history: the next one is asked as if it had not been. */
function remember(column, result) {
  const history = state.histories[column];
  if (result.text) history.push({ role: "assistant", content: result.text });
  else history.pop();
}

function addActions(view, body, result) {
  const copy = element("button", "quiet", words("copy"));
  copy.type = "button";
  copy.addEventListener("click", () => copyText(result.text, copy));
  const code = element("button", "quiet", words("showCode"));
  code.type = "button";
  code.addEventListener("click", () => openCode(body));
  view.figures.append(copy, code);
}

function setRunning(controller) {
  state.running = controller;
  $("send").hidden = controller !== null;
  $("stop").hidden = controller === null;
  $("log").setAttribute("aria-busy", String(controller !== null));
}

function stop() {
  state.running?.abort();
}

function clear() {
  stop();
  state.histories = [[], []];
  for (const turn of $("log").querySelectorAll(".turn")) turn.remove();
  $("welcome").hidden = false;
  $("prompt").focus();
}

function scrollDown(isForced) {
  const log = $("log");
  const isNearEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
  if (isForced || isNearEnd) log.scrollTop = log.scrollHeight;
}

// --- code of a request ---

function openCode(body) {
  state.shownBody = body;
  showCode("curl");
  $("code-dialog").showModal();
}

function showCode(language) {
  const origin = new URL(".", location.href).href.replace(/\/$/, "");
  $("code").textContent = (language === "curl" ? toCurl : toPython)(state.shownBody, origin);
  for (const name of ["curl", "python"]) $(`tab-${name}`).setAttribute("aria-selected", String(name === language));
}

async function copyText(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = words("copied");
  } catch {
    // No clipboard without https or permission: select the code, so that Ctrl+C copies it.
    getSelection().selectAllChildren(button.id === "code-copy" ? $("code") : button.closest(".answer"));
    return;
  }
  setTimeout(() => { button.textContent = label; }, 1200);
}

// --- settings, language, theme: remembered by the browser ---

function readSettings() {
  return Object.fromEntries(new FormData($("settings-form")).entries());
}

function saveSettings() {
  localStorage.setItem("argosy-settings", JSON.stringify(readSettings()));
}

function restoreSettings() {
  let saved = {};
  try {
    saved = JSON.parse(localStorage.getItem("argosy-settings") ?? "{}");
  } catch {
    localStorage.removeItem("argosy-settings");
  }
  for (const [name, value] of Object.entries(saved)) {
    const field = $("settings-form").elements.namedItem(name);
    if (field) field.value = String(value);
  }
}

function toggleSettings(isOpen) {
  $("settings").hidden = !isOpen;
  $("settings-toggle").setAttribute("aria-expanded", String(isOpen));
  (isOpen ? $("settings-close") : $("settings-toggle")).focus();
}

function setLanguage(language) {
  state.language = language;
  localStorage.setItem("argosy-language", language);
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  applyWords(document, language);
  const other = $("language");
  other.textContent = language === "zh" ? "EN" : "中";
  other.lang = language === "zh" ? "en" : "zh";
  other.setAttribute("aria-label", language === "zh" ? "Switch to English" : "切换到中文");
  $("examples").replaceChildren(...EXAMPLES.map((key) => {
    const example = element("button", "", words(key));
    example.type = "button";
    example.addEventListener("click", () => send(words(key)));
    return example;
  }));
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

function toggleTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("argosy-theme", theme);
  setTheme(theme);
}

function toggleCompare() {
  state.isComparing = !state.isComparing;
  $("compare").setAttribute("aria-pressed", String(state.isComparing));
  $("second-picker").hidden = !state.isComparing;
}

// --- start ---

function listen() {
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); send($("prompt").value); });
  $("prompt").addEventListener("keydown", (event) => {
    // While an input method composes (Chinese, Japanese), Enter chooses a character and sends nothing.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send($("prompt").value); }
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") stop(); });
  $("stop").addEventListener("click", stop);
  $("clear").addEventListener("click", clear);
  $("compare").addEventListener("click", toggleCompare);
  $("theme").addEventListener("click", toggleTheme);
  $("language").addEventListener("click", () => setLanguage(state.language === "zh" ? "en" : "zh"));
  $("settings-toggle").addEventListener("click", () => toggleSettings($("settings").hidden));
  $("settings-close").addEventListener("click", () => toggleSettings(false));
  $("settings-form").addEventListener("input", saveSettings);
  $("settings-form").addEventListener("submit", (event) => event.preventDefault());
  $("reset").addEventListener("click", () => { $("settings-form").reset(); saveSettings(); });
  $("key").addEventListener("click", askForKey);
  $("key-dialog").addEventListener("close", useKey);
  $("tab-curl").addEventListener("click", () => showCode("curl"));
  $("tab-python").addEventListener("click", () => showCode("python"));
  $("code-copy").addEventListener("click", () => copyText($("code").textContent, $("code-copy")));
  $("code-close").addEventListener("click", () => $("code-dialog").close());
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
setTheme(localStorage.getItem("argosy-theme") ?? (prefersDark.matches ? "dark" : "light"));
setLanguage(localStorage.getItem("argosy-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
restoreSettings();
listen();
loadModels();
