// Elements and numbers. Whatever comes from the server goes into textContent, never into markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

/** Replace a table's rows. Each row: cells of text or elements; `labels` name them where the table becomes cards. */
export function fillRows(body, rows, labels) {
  body.replaceChildren(...rows.map((cells) => {
    const row = element("tr");
    row.append(...cells.map((cell, index) => {
      const place = element("td");
      place.dataset.label = labels[index] ?? "";
      place.append(cell ?? "–");
      return place;
    }));
    return row;
  }));
}

export function phaseBadge(phase, word) {
  const badge = element("span", `badge ${phase}`, word);
  badge.dataset.phase = phase;
  return badge;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function number(value, digits = 1) {
  if (!isNumber(value)) return "–";
  return value !== 0 && Math.abs(value) < 10 ** -digits ? "<" + 10 ** -digits : value.toFixed(value >= 100 ? 0 : digits);
}

export function seconds(value) {
  if (!isNumber(value)) return "–";
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
}

export function percent(ratio, digits = 1) {
  return isNumber(ratio) ? `${(100 * ratio).toFixed(digits)} %` : "–";
}

export function age(value) {
  if (!isNumber(value) || value < 0) return "–";
  const whole = Math.floor(value);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${whole % 60}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h${Math.floor((whole % 3600) / 60)}m`;
  return `${Math.floor(whole / 86400)}d${Math.floor((whole % 86400) / 3600)}h`;
}

export function clock(unixSeconds) {
  const two = (value) => String(value).padStart(2, "0");
  const at = new Date(unixSeconds * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
