// What can be done to a service: each through the same route as the command line, each asked for in a dialog.

import { $, element } from "./dom.js";
import { byNumber } from "./history.js";

export class Actions {
  /** context: api, state, words; name: () → the service shown; done: called with a sentence when something was done. */
  constructor(context, name, done) {
    this.context = context;
    this.name = name;
    this.done = done;
    this.apply = null;
    $("act-scale").addEventListener("click", () => this.scale());
    $("act-traffic").addEventListener("click", () => this.traffic());
    $("act-undo").addEventListener("click", () => this.undo());
    $("act-pause").addEventListener("click", () => this.pause());
    $("act-delete").addEventListener("click", () => this.remove());
    $("action-form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    $("action-cancel").addEventListener("click", () => $("action-dialog").close());
    $("action-fields").addEventListener("input", () => this.check?.());
  }

  get service() {
    return this.context.state.services.get(this.name());
  }

  scale() {
    const { words } = this.context;
    const { min_replicas: least, max_replicas: most } = this.service.spec.scaling;
    const fields = [numberField("min", words("minReplicas"), least), numberField("max", words("maxReplicas"), most)];
    this.check = () => {
      const [low, high] = values(fields);
      fields[1].input.setCustomValidity(low > high ? words("minAboveMax") : "");
    };
    this.open("scale", words("scaleHow"), fields, async () => {
      const [low, high] = values(fields);
      await this.modify((spec) => { spec.scaling.min_replicas = low; spec.scaling.max_replicas = high; });
    });
  }

  traffic() {
    const { words } = this.context;
    const { spec, status } = this.service;
    const now = new Map(status.revisions.map((each) => [each.revision, each.weight]));
    const names = [...new Set([...now.keys(), ...Object.keys(spec.traffic)])].sort(byNumber);
    const fields = names.map((name) => numberField(name, name, spec.traffic[name] ?? now.get(name) ?? 0, 100));
    const automatic = checkField("automatic", words("automatic"), Object.keys(spec.traffic).length === 0);
    this.check = () => {
      const sum = values(fields).reduce((total, value) => total + value, 0);
      const isWrong = !automatic.input.checked && sum !== 100;
      for (const field of fields) field.input.disabled = automatic.input.checked;
      fields[0]?.input.setCustomValidity(isWrong ? `${words("sumIs")} ${sum}` : "");
    };
    this.open("traffic", words("trafficHow"), [automatic, ...fields], async () => {
      const weights = Object.fromEntries(names.map((name, index) => [name, values(fields)[index]]));
      const wanted = Object.fromEntries(Object.entries(weights).filter(([, weight]) => weight > 0));
      await this.modify((spec) => { spec.traffic = automatic.input.checked ? {} : wanted; });
    });
  }

  async undo() {
    const { api, words } = this.context;
    let [revisions, service] = [[], null];
    try {
      [revisions, service] = await Promise.all([api.revisions(this.name()), api.service(this.name())]);
    } catch (error) {
      this.done(error.message);
      return;
    }
    const present = JSON.stringify(service.spec.template);
    const older = revisions.filter((each) => JSON.stringify(each.spec.template) !== present).reverse();
    if (!older.length) {
      this.done(words("nothingToUndo"));
      return;
    }
    const field = chooseField("revision", words("goBackTo"), older.map((each) => `v${each.spec.number}`));
    this.check = null;
    this.open("undo", words("undoHow"), [field], async () => {
      const { template } = older[field.input.selectedIndex].spec;
      await this.modify((spec) => Object.assign(spec, { template, traffic: {}, paused: false }));
    });
  }

  pause() {
    const isPaused = this.service.spec.paused;
    const { words } = this.context;
    this.check = null;
    this.open(isPaused ? "resume" : "pause", words(isPaused ? "resumeHow" : "pauseHow"), [], async () => {
      await this.modify((spec) => { spec.paused = !isPaused; });
    });
  }

  remove() {
    const { words } = this.context;
    const name = this.name();
    const field = textField("name", `${words("typeName")} ${name}`);
    this.check = () => field.input.setCustomValidity(field.input.value === name ? "" : words("notTheName"));
    this.open("delete", words("deleteHow"), [field], async () => {
      await this.context.api.remove(name);
      location.hash = "#/";
    });
  }

  modify(change) {
    return this.context.api.modify(this.name(), change);
  }

  open(title, how, fields, apply) {
    const { words } = this.context;
    this.apply = apply;
    $("action-title").textContent = `${words(title)}: ${this.name()}`;
    $("action-how").textContent = how;
    $("action-fields").replaceChildren(...fields.map((field) => field.label));
    $("action-problem").hidden = true;
    $("action-apply").textContent = words(title);
    $("action-apply").classList.toggle("danger", title === "delete");
    this.title = words(title);
    this.check?.();
    $("action-dialog").showModal();
  }

  async submit() {
    $("action-apply").disabled = true;
    try {
      const name = this.name();
      await this.apply();
      $("action-dialog").close();
      this.done(`${name}: ${this.title} ${this.context.words("asked")}`);
    } catch (error) {
      $("action-problem").textContent = error.status ? error.message : this.context.words("unreachable");
      $("action-problem").hidden = false;
    } finally {
      $("action-apply").disabled = false;
    }
  }
}

function fieldOf(tag, name, text, settings) {
  const label = element("label", "field");
  const input = element(tag);
  Object.assign(input, { name, ...settings });
  label.append(element("span", "", text), input);
  return { label, input };
}

const numberField = (name, text, value, most = 10_000) =>
  fieldOf("input", name, text, { type: "number", min: 0, max: most, step: 1, required: true, value });
const textField = (name, text) => fieldOf("input", name, text, { type: "text", required: true, autocomplete: "off" });

function checkField(name, text, checked) {
  const field = fieldOf("input", name, text, { type: "checkbox", checked });
  field.label.classList.add("check");
  return field;
}

function chooseField(name, text, options) {
  const field = fieldOf("select", name, text, {});
  field.input.append(...options.map((option) => new Option(option, option)));
  return field;
}

const values = (fields) => fields.map((field) => Number(field.input.value));
