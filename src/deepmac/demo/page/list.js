// The list of boxes and the names of their classes.

import { maskOf, scoreOf } from "./masks.js";
import { colorOf } from "./outline.js";
import { $, current, state } from "./state.js";

const rows = new Map(); // number -> {row, text}
let does = { pick() {}, drop() {}, name() {} };

export function wireList(jobs) {
  does = jobs;
  $("class").addEventListener("change", () => does.name($("class").value.trim()));
  $("class").addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "Escape") {
      if (event.key === "Escape") $("class").value = current()?.boxes.selected?.label ?? "";
      $("canvas").focus({ preventScroll: true });
    }
  });
}

function make(number) {
  const row = document.createElement("li"), pick = document.createElement("button");
  const dot = document.createElement("span"), name = document.createElement("span");
  const size = document.createElement("span"), drop = document.createElement("button");
  pick.type = drop.type = "button";
  pick.className = "pick";
  dot.className = "dot";
  dot.style.background = `rgb(${colorOf(number).join()})`;
  name.className = "name";
  size.className = "size";
  pick.append(dot, name, size);
  pick.onclick = () => does.pick(number);
  drop.className = "drop";
  drop.textContent = "✕";
  drop.setAttribute("aria-label", `Remove box ${number}`);
  drop.onclick = () => does.drop(number);
  row.append(pick, drop);
  return { row, pick, name, size, text: "" };
}

let shownFor = null, scrolledTo = null;

export function list() {
  const entry = current(), all = entry?.boxes.all ?? [], selected = entry?.boxes.selected ?? null;
  if (shownFor !== entry) {
    rows.clear();
    shownFor = entry;
    scrolledTo = null;
  }
  const order = all.map((box) => {
    if (!rows.has(box.number)) rows.set(box.number, make(box.number));
    const one = rows.get(box.number), mask = maskOf(entry, box);
    const [x0, y0, x1, y1] = box.xyxy.map(Math.round);
    const size = `${x1 - x0} × ${y1 - y0}`, score = scoreOf(mask);
    const pressed = String(box === selected);
    const text = `${box.label}|${size}|${score}|${pressed}`;
    if (one.text !== text) {
      one.text = text;
      one.name.textContent = (box.label ? `${box.number} ${box.label}` : `Box ${box.number}`) +
        (box.marked ? " · redraw" : "");
      one.size.textContent = score ? `${size}, ${score.replace(" expected", "")}` : size;
      one.pick.setAttribute("aria-pressed", pressed);
    }
    return one.row;
  });
  const there = $("list").children;
  if (order.length !== there.length || order.some((row, i) => row !== there[i])) {
    const focused = document.activeElement;
    $("list").replaceChildren(...order);
    if (order.some((row) => row.contains(focused))) focused.focus({ preventScroll: true });
    for (const number of rows.keys()) if (!entry.boxes.get(number)) rows.delete(number);
  }
  if (selected && scrolledTo !== selected.number) into(rows.get(selected.number).row);
  scrolledTo = selected?.number ?? null;
  $("count").textContent = all.length ? String(all.length) : "";
  $("hint").hidden = !entry || all.length > 0;
  classes(selected);
}

// The list scrolls, not the page.
function into(row) {
  const box = $("list"), top = row.offsetTop - box.offsetTop;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + row.offsetHeight > box.scrollTop + box.clientHeight)
    box.scrollTop = top + row.offsetHeight - box.clientHeight;
}

let known = "";

function classes(selected) {
  const input = $("class");
  input.disabled = !selected;
  if (document.activeElement !== input) input.value = selected?.label ?? "";
  const now = JSON.stringify(state.classes);
  if (now !== known) {
    known = now;
    $("classes").replaceChildren(...state.classes.map((name) => new Option(name, name)));
    $("chips").replaceChildren(...state.classes.slice(0, 9).map((name, index) => {
      const chip = document.createElement("button"), key = document.createElement("kbd");
      chip.type = "button";
      chip.dataset.name = name;
      key.textContent = String(index + 1);
      key.setAttribute("aria-hidden", "true");
      chip.append(key, ` ${name}`);
      chip.onclick = () => does.name(name);
      return chip;
    }));
  }
  for (const chip of $("chips").children) {
    chip.disabled = !selected;
    chip.setAttribute("aria-pressed", String(selected?.label === chip.dataset.name));
  }
}
