"use strict";
// The page of `addgpt serve`; attention.js has `make`, `percent` and `drawAttention`.

const $ = (id) => document.getElementById(id);

// ---- calculate

let source = null; // of events, while an expression is worked out

function end({ text, right = false }) {
  if (source) source.close();
  $("answer").className = right ? "" : "wrong";
  $("answer").textContent = text;
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  end({ text: "…", right: true });
  $("steps").textContent = "";
  source = new EventSource("solve?" + new URLSearchParams({ text: $("expression").value }));
  source.addEventListener("error", () => end({ text: "the server does not answer" }));
  let step = null;
  const on = (name, act) => source.addEventListener(name, (e) => act(JSON.parse(e.data)));
  on("step", ({ title, problem }) => {
    const card = make($("steps"), "article");
    const head = make(card, "h2", {}, title), work = make(card, "div", { class: "work" });
    step = { head, work, picture: make(card, "div"), problem, completion: "", row: null };
  });
  on("token", (token) => write(step, token));
  on("done", ({ title }) => { step.head.textContent = title; });
  on("answer", end);
});

function write(step, { char, chance, wrong, row, label }) {
  if (row !== step.row) {
    make(step.work, "span", { class: "soft" }, label);
    step.tokens = make(step.work, "div", { class: "tokens" });
    step.row = row;
  }
  const place = step.completion.length;
  step.completion += char;
  const name = `${char}, ${wrong ? "wrong, " : ""}probability ${chance.toFixed(3)}`;
  const button = make(step.tokens, "button", {
    class: `token share ${wrong ? "wrong" : ""}`, style: `--share: ${chance}`, title: name,
    "aria-label": name, "aria-pressed": "false",
  }, char);
  button.addEventListener("click", () => look(step, place, button));
}

async function look(step, place, button) {
  for (const other of step.work.querySelectorAll("[aria-pressed=true]")) other.ariaPressed = false;
  button.ariaPressed = true;
  if (step.attention?.slots.length !== step.completion.length) {
    const body = `${step.problem}\n${step.completion}`;
    const reply = await fetch("attention", { method: "POST", body });
    if (!reply.ok) {
      step.picture.textContent = await reply.text();
      return;
    }
    step.attention = await reply.json();
  }
  if (button.ariaPressed !== "true") return; // another one was chosen meanwhile
  drawAttention(step.picture, step.attention, place);
  step.picture.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// ---- runs

let shown = "";

async function showRuns() {
  if (!$("tab-runs").checked) return;
  try {
    const text = await (await fetch("live")).text();
    if (text === shown) return;
    const runs = JSON.parse(text);
    $("runs").textContent = runs.length ? "" : "No run yet: addgpt train --task add --digits 3";
    runs.forEach(showRun);
    shown = text;
  } catch {
    $("runs").textContent = "the server does not answer";
    shown = "";
  }
}
$("tab-runs").addEventListener("change", showRuns);
setInterval(showRuns, 2000);

function showRun({ name, text, wrong, loss, exact, cells }) {
  const card = make($("runs"), "article");
  make(card, "h2", {}, name);
  make(card, "p", { class: wrong ? "wrong" : "soft" }, text);
  const pictures = make(card, "div", { class: "pictures" });
  if (loss.length > 1) drawCurves(pictures, loss, exact);
  for (const op of new Set(cells.map(([op]) => op))) {
    drawMap(pictures, op, cells.filter((cell) => cell[0] === op));
  }
}

function drawCurves(parent, loss, exact) {
  const figure = make(parent, "figure");
  const svg = make(figure, "svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" });
  const most = Math.max(...loss.map(([, value]) => value)) || 1;
  for (const [name, points, top] of [["exact", exact, 1], ["loss", loss, most]]) {
    const drawn = points.map(([x, y]) => [(100 * x) / loss.at(-1)[0], 98 - (96 * y) / top]);
    make(svg, "polyline", { class: name, points: drawn.join(" ") });
  }
  const right = exact.length ? `line: ${percent(exact.at(-1)[1])} of val right (0 to 100 %); ` : "";
  const now = `dashes: loss on val ${loss.at(-1)[1].toFixed(3)} (0 to ${most.toFixed(1)})`;
  make(figure, "figcaption", {}, right + now);
}

function drawMap(parent, op, cells) {
  const figure = make(parent, "figure"), table = make(figure, "table");
  make(figure, "figcaption", {}, "% right, by digits of the first operand (down) and the second");
  const lengths = (which) => [...new Set(cells.map((cell) => cell[which]))].sort((a, b) => a - b);
  const head = make(table, "tr");
  make(head, "th", {}, op);
  for (const b of lengths(2)) make(head, "th", { scope: "col" }, b);
  for (const a of lengths(1).reverse()) {
    const line = make(table, "tr");
    make(line, "th", { scope: "row" }, a);
    for (const b of lengths(2)) {
      const [, , , right, n] = cells.find((one) => one[1] === a && one[2] === b) ?? [];
      const look = n && { class: "share", style: `--share: ${right / n}`, title: `${right} of ${n}` };
      make(line, "td", look, n ? percent(right / n).replace(" %", "") : "");
    }
  }
}

fetch("about").then((reply) => reply.text()).then((text) => { $("about").textContent = text; });
