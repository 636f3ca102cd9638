"use strict";
// The page of `addgpt serve`: asks the server for events, and draws what they say.

const $ = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "text", "title"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// ---- tabs

const tabs = [...document.querySelectorAll("[role=tab]")];
function open(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-runs") showRuns();
}
for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = tabs[(index + 1) % tabs.length];
    next.focus();
    open(next);
  });
}

// ---- calculate

const tint = (chance) => (chance >= 0.99 ? "t0" : chance >= 0.9 ? "t1" : "t2");
let source = null, step = null;

function stop() {
  if (source) source.close();
  source = null;
  $("stop").hidden = true;
  $("go").disabled = false;
}

function fail(message) {
  stop();
  $("answer").className = "bad";
  $("answer").textContent = message;
}

$("stop").addEventListener("click", () => fail("stopped"));
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  stop();
  $("steps").replaceChildren();
  $("answer").className = "";
  $("answer").textContent = "…";
  $("notes").textContent = "";
  $("go").disabled = true;
  $("stop").hidden = $("legend").hidden = false;
  source = new EventSource("solve?" + new URLSearchParams({ text: $("expression").value }));
  source.addEventListener("step", (e) => begin(JSON.parse(e.data)));
  source.addEventListener("tokens", (e) => JSON.parse(e.data).forEach(write));
  source.addEventListener("done", (e) => finish(JSON.parse(e.data)));
  source.addEventListener("answer", (e) => {
    const told = JSON.parse(e.data);
    stop();
    $("answer").className = told.right ? "" : "bad";
    $("answer").textContent = told.text;
    $("notes").textContent = told.notes.join("; ");
  });
  source.addEventListener("refused", (e) => fail(JSON.parse(e.data)));
  source.onerror = () => fail("the server does not answer");
});

function begin(told) {
  const work = make("div", { class: "work" });
  const picture = make("div");
  const item = make("li", { class: "step" }, make("h2", {}, told.title), work, picture);
  step = { problem: told.problem, work, picture, item, row: null, count: 0, completion: "" };
  $("steps").append(item);
}

function write(token) {
  const now = step;
  const [number, name] = token.row;
  if (!now.row || now.row.number !== number) {
    const tokens = make("div", { class: "tokens" });
    now.work.append(make("div", { class: "name" }, name), tokens);
    now.row = { number, tokens };
  }
  const place = now.count++;
  now.completion += token.char;
  const sure = `${token.char}, ${token.wrong ? "wrong, " : ""}probability ${token.chance.toFixed(3)}`;
  const button = make("button", { class: `token ${tint(token.chance)}${token.wrong ? " wrong" : ""}`, title: sure, "aria-label": sure, "aria-pressed": "false", type: "button" }, token.char);
  button.addEventListener("click", () => look(now, place, button));
  now.row.tokens.append(button);
}

function finish(told) {
  step.item.querySelector("h2").textContent = told.title;
  if (!told.right) step.item.querySelector("h2").className = "wrong";
  step.picture.before(make("details", {}, make("summary", {}, "as on paper"), make("pre", {}, told.paper)));
}

async function look(of, place, button) {
  for (const other of of.work.querySelectorAll("[aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", "true");
  if (!of.attention || of.attention.slots.length < of.completion.length) {
    const body = JSON.stringify({ problem: of.problem, completion: of.completion });
    const reply = await fetch("attention", { method: "POST", body });
    if (!reply.ok) {
      of.picture.textContent = await reply.text();
      return;
    }
    of.attention = await reply.json();
  }
  drawAttention(of.picture, of.attention, place);
  of.picture.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// ---- runs

let timer = 0;
async function showRuns() {
  clearTimeout(timer);
  if ($("runs").hidden) return;
  try {
    const reply = await fetch("live");
    const runs = await reply.json();
    $("none").hidden = runs.length > 0;
    $("none").textContent = "No run here yet: addgpt train --task add --digits 3";
    $("list").replaceChildren(...runs.map(runCard));
  } catch {
    $("none").hidden = false;
    $("none").textContent = "the server does not answer";
  }
  timer = setTimeout(showRuns, 2000);
}

function runCard(run) {
  const card = make("article", { class: "run" }, make("h2", {}, run.name));
  if (run.error) {
    card.append(make("p", { class: "wrong" }, run.error));
    return card;
  }
  const steps = run.curves.step;
  const now = steps.length ? steps[steps.length - 1] : 0;
  const state = run.training ? make("span", { class: "live" }, "training") : `changed ${ago(run.age)} ago`;
  card.append(make("p", { class: "soft" }, `${run.task}, step ${now.toLocaleString("en")} of ${run.steps.toLocaleString("en")}, `, state));
  const pictures = make("div", { class: "pictures" });
  if (steps.length > 1) pictures.append(curve(run.curves));
  for (const [op, cells] of Object.entries(run.maps)) pictures.append(map(op, cells));
  card.append(pictures);
  return card;
}

function ago(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, name] = units.find(([size]) => seconds >= size) || units[3];
  return `${Math.floor(seconds / size)} ${name}`;
}

function curve(curves) {
  const [width, height, left, bottom] = [340, 150, 34, 18];
  const steps = curves.step, last = steps[steps.length - 1];
  const exact = curves.val_exact.some((value) => value !== null);
  const losses = curves.val_loss.map((value, i) => value ?? curves.loss[i]);
  const top = Math.max(...losses.filter((value) => value !== null), 0.01);
  const x = (step) => left + ((width - left - 6) * step) / last;
  const y = (share) => 8 + (height - 8 - bottom) * (1 - share);
  const path = (values, of) => values.map((v, i) => (v === null ? "" : `L${x(steps[i]).toFixed(1)} ${y(v / of).toFixed(1)}`)).join("").replace("L", "M");
  const texts = [[2, 14, exact ? "100%" : top.toFixed(1)], [2, height - bottom, "0"], [left, height - 4, "0"], [width - 60, height - 4, last.toLocaleString("en")]];
  const label = exact ? "exact match on val (line), loss on val (dashes)" : "loss on val";
  const drawing = make("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img" }, make("title", {}, label));
  if (exact) drawing.append(make("path", { d: path(curves.val_exact, 1) }));
  drawing.append(make("path", { class: "loss", d: path(losses, top) }));
  for (const [a, b, text] of texts) drawing.append(make("text", { x: a, y: b }, text));
  const value = exact ? `exact match ${percent(curves.val_exact.filter((v) => v !== null).pop())}, ` : "";
  return make("figure", {}, drawing, make("figcaption", {}, `${label}; now ${value}loss ${losses[losses.length - 1]?.toFixed(3)}`));
}

// Never rounded up to 100.
const percent = (share) => (share === 1 ? "100%" : `${(Math.floor(share * 1000) / 10).toFixed(1)}%`);

function map(op, cells) {
  const sorted = (index) => [...new Set(cells.map((cell) => cell[index]))].sort((a, b) => a - b);
  const counts = new Map(cells.map(([a, b, right, n]) => [`${a},${b}`, [right, n]]));
  const table = make("table", { class: "map" }, make("tr", {}, make("th", {}, op), ...sorted(1).map((b) => make("th", { scope: "col" }, b))));
  for (const a of sorted(0).reverse()) {
    const row = sorted(1).map((b) => {
      const [right, n] = counts.get(`${a},${b}`) || [0, 0];
      if (!n) return make("td");
      const shade = right === n ? 4 : Math.min(3, Math.floor((4 * right) / n));
      return make("td", { class: `m${shade}`, title: `${right} of ${n}` }, right === n ? "100" : (Math.floor((1000 * right) / n) / 10).toFixed(1));
    });
    table.append(make("tr", {}, make("th", { scope: "row" }, a), ...row));
  }
  return make("figure", {}, table, make("figcaption", {}, "% right, by digits of the first operand (down) and the second"));
}

fetch("about").then((reply) => reply.json()).then((told) => {
  $("about").textContent = told.text;
  $("expression").placeholder = told.example;
});
$("expression").focus();
