// The console: asks the control plane once a second how everything is, keeps what it hears, and draws it.
// State is one object. What is shown is what was answered; while nothing is answered, the banner says so.

import { Actions } from "./actions.js";
import { ControlApi } from "./api.js";
import { ServiceView } from "./detail.js";
import { $ } from "./dom.js";
import { History, rowOf } from "./history.js";
import { drawDevices, drawOverview } from "./overview.js";
import { applyWords, WORDS } from "./words.js";

const PERIOD_MILLISECONDS = 1_000;
const RETRY_MILLISECONDS = 1_000;
const SETTLE_MILLISECONDS = 30;

const state = {
  language: "en",
  key: sessionStorage.getItem("argosy-control-key") ?? "",
  services: new Map(),
  hasServices: false,
  histories: new Map(),
  top: null,
  view: null,
  soon: 0,
};
const words = (key) => WORDS[state.language][key] ?? key;
const api = new ControlApi(() => state.key);
const context = { api, state, words };

// --- what is heard ---

async function poll() {
  const began = Date.now();
  try {
    state.top = await api.top();
    remember(state.top);
    showProblem("");
  } catch (error) {
    for (const history of state.histories.values()) history.gap(began / 1000);
    await tell(error);
  }
  draw();
  setTimeout(poll, Math.max(100, PERIOD_MILLISECONDS - (Date.now() - began)));
}

function remember(top) {
  for (const load of top.services) {
    const { service } = load;
    if (!state.histories.has(service)) state.histories.set(service, new History());
    const replicas = top.replicas.filter((each) => each.service === service);
    state.histories.get(service).push(top.at, rowOf(load, state.services.get(service), replicas));
  }
  const named = new Set(top.services.map((load) => load.service));
  for (const name of state.histories.keys()) if (!named.has(name)) state.histories.delete(name);
}

async function followServices() {
  for (;;) {
    const seen = new Map();
    try {
      for await (const { resource, is_deleted } of api.watch("v1/inferenceservices?watch=true", new AbortController().signal)) {
        if (is_deleted) seen.delete(resource.metadata.name);
        else seen.set(resource.metadata.name, resource);
        clearTimeout(state.soon);
        state.soon = setTimeout(() => {
          state.services = new Map([...seen].sort(([one], [other]) => one.localeCompare(other)));
          draw();
        }, SETTLE_MILLISECONDS);
      }
    } catch {
      // `poll` tells what is wrong; here it is only tried again.
    }
    await new Promise((resolve) => { setTimeout(resolve, RETRY_MILLISECONDS); });
  }
}

async function tell(error) {
  if (error.status === 401 || error.status === 403) {
    showProblem(words("needsKey"));
    askForKey();
  } else {
    showProblem(error.status ? error.message : words("unreachable"));
  }
}

// --- what is shown ---

function draw() {
  const name = serviceInHash();
  if (name !== state.view?.name) show(name);
  state.hasServices = state.top !== null;
  $("notice").textContent = state.top?.gateway_message ?? "";
  $("notice").hidden = !$("notice").textContent;
  if (state.view) state.view.draw();
  else drawList();
}

function drawList() {
  // Nothing declared is not the same as nothing heard: only an answer can say that there is nothing.
  const isEmpty = state.top !== null && state.services.size === 0 && state.top.services.length === 0;
  $("empty").hidden = !isEmpty || !$("problem").hidden;
  $("services").hidden = state.services.size === 0;
  $("waiting").hidden = state.top !== null || !$("problem").hidden;
  drawOverview($("services"), state, words);
  const devices = state.top?.devices ?? [];
  $("devices-box").hidden = devices.length === 0;
  drawDevices($("devices"), devices, words);
}

function show(name) {
  state.view?.close();
  state.view = null;
  $("overview").hidden = name !== null;
  $("detail").hidden = name === null;
  document.title = name === null ? "Argosy" : `${name} · Argosy`;
  if (name !== null) state.view = new ServiceView(name, context);
}

function serviceInHash() {
  const found = /^#\/services\/([^/]+)$/.exec(location.hash);
  try {
    return found ? decodeURIComponent(found[1]) : null;
  } catch {
    return null;
  }
}

function showProblem(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
  document.body.classList.toggle("stale", Boolean(message));
}

function showDone(sentence) {
  $("done").textContent = sentence;
}

// --- key, language, theme ---

function askForKey() {
  if ($("key-dialog").open) return;
  $("key-input").value = "";
  $("key-dialog").showModal();
}

function useKey() {
  if ($("key-dialog").returnValue !== "use") return;
  state.key = $("key-input").value.trim();
  $("key-input").value = "";
  sessionStorage.setItem("argosy-control-key", state.key);
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
  state.view?.redraw();
  draw();
}

function toggleTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("argosy-theme", theme);
  document.documentElement.dataset.theme = theme;
  state.view?.redraw();
}

function listen() {
  addEventListener("hashchange", draw);
  $("theme").addEventListener("click", toggleTheme);
  $("language").addEventListener("click", () => setLanguage(state.language === "zh" ? "en" : "zh"));
  $("key").addEventListener("click", askForKey);
  $("key-dialog").addEventListener("close", useKey);
  $("span").addEventListener("change", draw);
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.theme = localStorage.getItem("argosy-theme") ?? (prefersDark.matches ? "dark" : "light");
listen();
new Actions(context, () => state.view?.name, showDone);
setLanguage(localStorage.getItem("argosy-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
poll();
followServices();
