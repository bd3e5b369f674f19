// The translation page: which models translate, one text, one answer. Addresses are relative, so that it also works
// behind a prefix. What the model says is set as text, never as HTML.

import { applyWords, languageName, WORDS } from "./translate_words.js";

const $ = (id) => document.getElementById(id);
const state = { language: "en", models: [], running: null };
const words = (key) => WORDS[state.language][key];

// --- models and languages ---

async function loadModels() {
  try {
    const response = await fetch("translate/models");
    if (!response.ok) throw new Error(await problemOf(response));
    state.models = (await response.json()).models;
    showBanner(state.models.length ? "" : words("noModels"));
  } catch (error) {
    showBanner(error instanceof TypeError ? words("unreachable") : error.message);
  }
  const wanted = new URLSearchParams(location.search).get("model");
  $("model").replaceChildren(...state.models.map((model) => new Option(model.name, model.name)));
  if (state.models.some((model) => model.name === wanted)) $("model").value = wanted;
  $("translate").disabled = state.models.length === 0;
  showLanguages();
}

function showLanguages() {
  const model = state.models.find((each) => each.name === $("model").value);
  const codes = Object.entries(model?.languages ?? {});
  for (const [index, select] of [$("from"), $("to")].entries()) {
    const chosen = select.value;
    select.replaceChildren(...codes.map(([code, name]) => new Option(languageName(code, name, state.language), code)));
    select.selectedIndex = Math.min(index, codes.length - 1);
    if (model && chosen in model.languages) select.value = chosen;
  }
}

function swap() {
  const from = $("from").value;
  $("from").value = $("to").value;
  $("to").value = from;
  if ($("translation").dataset.state === "done") {
    $("text").value = $("translation").textContent;
    show("", "");
  }
  $("text").focus();
}

// --- one translation ---

async function translate() {
  if (!$("form").reportValidity() || !$("model").value) return;
  state.running?.abort();
  const controller = (state.running = new AbortController());
  $("translation").dataset.state = "waiting";
  $("time").textContent = "";
  const began = performance.now();
  try {
    const response = await fetch(`predictions/${encodeURIComponent($("model").value)}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: $("text").value, from: $("from").value, to: $("to").value }),
      signal: controller.signal,
    });
    if (!response.ok) throw new Error(await problemOf(response));
    show((await response.json()).text, "done");
    $("time").textContent = `${Math.round(performance.now() - began)} ms`;
  } catch (error) {
    if (error.name === "AbortError") return; // a newer one has taken its place
    show(error instanceof TypeError ? words("unreachable") : error.message, "failed");
  }
}

function show(text, outcome) {
  $("translation").textContent = text;
  $("translation").dataset.state = outcome;
  $("copy").disabled = outcome !== "done";
}

async function problemOf(response) {
  if (response.status === 401) return words("refused");
  if (response.status === 429 || response.status === 503) return words("busy");
  try {
    const body = await response.json();
    return body.error?.message ?? body.message ?? `${response.status} ${response.statusText}`;
  } catch {
    return `${response.status} ${response.statusText}`; // not JSON (a proxy's page, say)
  }
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("translation").textContent);
  } catch {
    // No clipboard without https or permission: select the text, so that Ctrl+C copies it.
    getSelection().selectAllChildren($("translation"));
    return;
  }
  $("copy").textContent = words("copied");
  setTimeout(() => { $("copy").textContent = words("copy"); }, 1200);
}

// --- language and theme: remembered by the browser, and shared with the chat page ---

function setLanguage(language) {
  state.language = language;
  localStorage.setItem("argosy-language", language);
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  applyWords(document, language);
  document.title = `Argosy · ${words("title")}`;
  const other = $("language");
  other.textContent = language === "zh" ? "EN" : "中";
  other.lang = language === "zh" ? "en" : "zh";
  other.setAttribute("aria-label", language === "zh" ? "Switch to English" : "切换到中文");
  showLanguages();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

function toggleTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("argosy-theme", theme);
  setTheme(theme);
}

function showBanner(message) {
  $("banner").textContent = message;
  $("banner").hidden = !message;
}

// --- start ---

function listen() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); translate(); });
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) translate();
  });
  $("model").addEventListener("change", showLanguages);
  $("swap").addEventListener("click", swap);
  $("copy").addEventListener("click", copy);
  $("theme").addEventListener("click", toggleTheme);
  $("language").addEventListener("click", () => setLanguage(state.language === "zh" ? "en" : "zh"));
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
setTheme(localStorage.getItem("argosy-theme") ?? (prefersDark.matches ? "dark" : "light"));
setLanguage(localStorage.getItem("argosy-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
listen();
loadModels();
