"use strict";

// A new element at the end of `parent`.
function make(parent, tag, attributes = {}, text = "") {
  const inSvg = tag === "svg" || parent instanceof SVGElement;
  const svg = "http://www.w3.org/2000/svg";
  const made = inSvg ? document.createElementNS(svg, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== "") made.textContent = text;
  parent.append(made);
  return made;
}

function percent(share) {
  const value = Math.floor(1000 * share) / 10;
  return value >= 99.9 && share < 1 ? "over 99.9\u00a0%" : `${value}\u00a0%`;
}

// Draw what a model attended to while it wrote: the work as on paper, an arc for each weight.
// `data` is described at the top of addgpt/interpret/page.py; attention.css has the style.
// `first` is the number of the slot that is shown at first.
function drawAttention(element, data, first = 0) {
  const CELL = 36, LINE = 52, EDGE = 18;
  const shown = { slot: first, block: 0, heads: new Set(Array.from({ length: data.heads }, (_, h) => h)) };

  const visible = (char) => ({ "\n": "↵", " ": "␣" })[char] || char;
  const color = (head) => `var(--h${head % 8})`;
  const called = (head) => (data.blocks > 1 ? `head ${shown.block}.${head}` : `head ${head}`);

  function where(token) {
    const parts = [];
    if (token.kind) parts.push(token.kind);
    if (token.place) parts.push(`column ${token.place}`);
    if (token.step) parts.push(`step ${token.step}`);
    return parts.join(", ");
  }

  element.textContent = "";
  element.classList.add("attn");
  const wrong = data.right === false;
  const lead = make(element, "p", { class: "soft" });
  lead.textContent =
    "Choose a token that the model wrote, by click, touch or arrow keys: arcs lead to what each " +
    "head attended to when writing it; thicker means more.";
  if (wrong) make(element, "p", { class: "wrong" }, "This answer is wrong.");
  const controls = make(element, "div", { class: "controls", role: "group", "aria-label": "Heads" });
  const paper = make(element, "div", { class: "paper" });
  const facts = make(element, "div", { class: "facts", "aria-live": "polite" });

  // The paper.
  const labelled = Math.max(0, ...data.rows.map((label) => label.length));
  const left = EDGE + 7 * labelled;
  const start = Math.min(...data.tokens.map((token) => token.column));
  const last = Math.max(...data.tokens.map((token) => token.column));
  const width = left + (last - start + 1) * CELL + 2 * EDGE;
  const height = data.rows.length * LINE + 2 * EDGE;
  const svg = make(paper, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group" });
  svg.setAttribute("aria-label", `The work of ${data.problem}`);
  const x = (token) => left + (token.column - start + 0.5) * CELL + (token.small ? CELL * 0.42 : 0);
  const y = (token) => EDGE + (token.row + 0.5) * LINE - (token.small ? LINE * 0.25 : 0);
  data.rows.forEach((label, row) => {
    make(svg, "text", { class: "label", x: left - 4, y: EDGE + (row + 0.5) * LINE }, label);
  });
  const firstWritten = data.tokens[data.prompt];
  if (firstWritten && firstWritten.row > 0) {
    const high = EDGE + firstWritten.row * LINE;
    make(svg, "line", { class: "line", x1: left, x2: width - EDGE, y1: high, y2: high });
  }
  const arcs = make(svg, "g");
  const slotOf = new Map(data.slots.map((slot, number) => [slot.token, number]));
  const spots = data.tokens.map((token, place) => {
    const written = slotOf.has(place);
    const group = make(svg, "g", { class: (written ? "written" : "given") + (token.small ? " small" : "") });
    const size = token.small ? 9 : 15;
    make(group, "circle", { class: "spot", cx: x(token), cy: y(token), r: size });
    make(group, "text", { x: x(token), y: y(token) }, visible(token.char));
    make(group, "title", {}, where(token));
    if (written) {
      group.setAttribute("role", "button");
      group.setAttribute("aria-label", `${token.char}, ${where(token)}`);
      group.addEventListener("click", () => choose(slotOf.get(place)));
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          choose(slotOf.get(place));
        }
      });
    }
    return group;
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const end = { Home: 0, End: data.slots.length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    choose(end !== undefined ? end : shown.slot + step, true);
  });

  function choose(number, focus = false) {
    shown.slot = Math.max(0, Math.min(data.slots.length - 1, number));
    draw();
    if (focus) spots[data.slots[shown.slot].token].focus();
  }

  // Work that is larger than the screen: scroll the paper to the chosen token.
  function show(token) {
    const across = x(token), left = paper.scrollLeft, room = paper.clientWidth;
    if (across < left + CELL || across > left + room - CELL) paper.scrollLeft = across - room / 2;
    const down = y(token), top = paper.scrollTop, high = paper.clientHeight;
    if (down < top + LINE || down > top + high - LINE) paper.scrollTop = down - high / 2;
  }

  function draw() {
    const slot = data.slots[shown.slot];
    spots.forEach((spot, place) => {
      spot.classList.toggle("now", place === slot.token);
      spot.classList.toggle("later", place > slot.token);
      if (slotOf.has(place)) spot.setAttribute("tabindex", place === slot.token ? "0" : "-1");
    });
    arcs.textContent = "";
    const to = data.tokens[slot.token];
    slot.looks[shown.block].forEach((looks, head) => {
      if (!shown.heads.has(head)) return;
      for (const [place, weight] of looks) {
        const from = data.tokens[place];
        const dx = x(to) - x(from), dy = y(to) - y(from), size = Math.hypot(dx, dy) || 1;
        const bend = (head - (data.heads - 1) / 2) * 13 + (data.heads % 2 ? 7 : 0);
        const cx = (x(to) + x(from)) / 2 + (dy / size) * bend * 1.6;
        const cy = (y(to) + y(from)) / 2 - (dx / size) * bend * 1.6;
        const arc = make(arcs, "path", {
          class: "arc", d: `M${x(from)} ${y(from)}Q${cx} ${cy} ${x(to)} ${y(to)}`,
          style: `stroke: ${color(head)}`, "stroke-width": 0.7 + 6 * weight,
          opacity: 0.35 + 0.6 * weight,
        });
        arc.dataset.head = head;
      }
    });
    controls.textContent = "";
    for (let block = 0; data.blocks > 1 && block < data.blocks; block++) {
      const button = make(controls, "button", { class: "block", "aria-pressed": block === shown.block });
      button.textContent = `block ${block}`;
      button.addEventListener("click", () => again(() => { shown.block = block; }, `.block:nth-of-type(${block + 1})`));
    }
    for (let head = 0; head < data.heads; head++) {
      const button = make(controls, "button", { class: "head", "aria-pressed": shown.heads.has(head) });
      make(button, "span", { class: "dot", style: `--c: ${color(head)}` });
      button.append(`${called(head)}: ${data.names[shown.block][head]}`);
      button.dataset.head = head;
      button.addEventListener("click", () => again(() => {
        if (!shown.heads.delete(head)) shown.heads.add(head);
      }, `[data-head="${head}"]`));
    }
    describe(slot, to);
    show(to);
  }

  function again(change, selector) {
    change();
    draw();
    const button = controls.querySelector(selector);
    if (button) button.focus();
  }

  function describe(slot, token) {
    facts.textContent = "";
    const seen = section(`Attention when writing ${visible(token.char)}`, where(token));
    const table = make(seen, "table");
    slot.looks[shown.block].forEach((looks, head) => {
      const row = make(table, "tr");
      const name = make(row, "th", { scope: "row" });
      make(name, "span", { class: "dot", style: `--c: ${color(head)}` });
      name.append(called(head));
      const cell = make(row, "td");
      make(cell, "div", { class: "soft" }, slot.names[shown.block][head]);
      looks.slice(0, 5).forEach(([place, weight]) => {
        const other = data.tokens[place], line = make(cell, "div");
        make(line, "code", {}, visible(other.char));
        line.append(`${where(other) && ` ${where(other)}`}: ${percent(weight)}`);
      });
    });
    if (slot.parts.length) {
      const text = `Logits that each part adds to ${visible(token.char)}, less those for the runner-up, ${visible(slot.against)}`;
      const most = Math.max(...slot.parts.map(([, value]) => Math.abs(value)), 1e-9);
      const bars = make(section("Which part wrote it", text), "table");
      for (const [name, value] of slot.parts) {
        const row = make(bars, "tr");
        make(row, "th", { scope: "row" }, name);
        const bar = make(make(row, "td"), "div", { class: "bar" });
        const size = (50 * Math.abs(value)) / most;
        const start = value < 0 ? 50 - size : 50;
        make(bar, "i", { class: value < 0 ? "less" : "more", style: `left: ${start}%; width: ${size}%` });
        make(row, "td", { class: "number" }, value.toFixed(2));
      }
    } else if (data.note) make(section("Which part wrote it", ""), "p", { class: "soft" }, data.note);
    const lens = section("If the model ended there (logit lens)", `${percent(slot.sure)} sure in the end`);
    const places = make(lens, "table");
    for (const [place, best] of slot.lens) {
      const row = make(places, "tr");
      make(row, "th", { scope: "row" }, place);
      const cell = make(row, "td");
      best.filter(([, chance], number) => !number || chance >= 0.001).forEach(([char, chance], number) => {
        if (number) cell.append(", ");
        const said = make(cell, "span", { class: "said" });
        make(said, "code", {}, visible(char));
        said.append(`: ${percent(chance)}`);
      });
    }
  }

  function section(title, text) {
    const made = make(facts, "section");
    make(made, "h2", {}, title);
    if (text) make(made, "p", { class: "soft" }, text);
    return made;
  }

  if (data.slots.length) draw();
}
