// The keyboard: the same wherever the focus is, but for fields that are typed in.

import { $, current, state } from "./state.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// `page` knows what to do.
export function wireKeys(page) {
  let space = false, over = false;
  $("canvas").addEventListener("pointerenter", () => { over = true; });
  $("canvas").addEventListener("pointerleave", () => { over = false; });

  const typed = (element) => element.matches?.("textarea, select, input:not([type=range])");

  function command(event) {
    const key = event.key.toLowerCase();
    if (key === "z") return event.shiftKey ? page.redo : page.undo;
    if (key === "y") return page.redo;
    if (key === "s" && page.save) return page.saveNow;
    return null;
  }

  // What a key does, or null.
  function action(event) {
    const { key } = event, box = current().boxes.selected, arrow = ARROWS[key];
    if (arrow) {
      if (event.target.type === "range") return null;
      return () => page.arrow(arrow, event.altKey, event.shiftKey);
    }
    if (event.altKey) return null;
    if (key === "n" || key === "N") return page.newBox;
    if (key === "]" || key === "[") return () => page.step(key === "]" ? 1 : -1);
    if ((key === "Delete" || key === "Backspace") && box) return () => page.remove(box);
    if (key === "Escape") return page.none;
    if (key === "+" || key === "=") return () => page.zoom(1.25);
    if (key === "-" || key === "_") return () => page.zoom(0.8);
    if (key === "0" || key === "f" || key === "F") return page.fit;
    if (key === "PageDown" || key === ".") return () => page.go(1);
    if (key === "PageUp" || key === ",") return () => page.go(-1);
    if (key === "c" || key === "C") return box ? () => $("class").focus() : null;
    if (/^[1-9]$/.test(key) && box && state.classes[key - 1])
      return () => page.name(state.classes[key - 1]);
    return null;
  }

  document.addEventListener("keydown", (event) => {
    if (!current() || event.defaultPrevented || typed(event.target)) return;
    if (event.key === " ") {
      const pressed = event.target.closest?.("button, summary, input, select");
      if (pressed && !over) return;
      space = true;
      event.preventDefault();
      return;
    }
    const job = event.ctrlKey || event.metaKey ? command(event) : action(event);
    if (!job) return;
    event.preventDefault();
    job();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key !== " " || !space) return;
    space = false;
    event.preventDefault(); // no button is pressed by it
  });
  window.addEventListener("blur", () => { space = false; });
  return { space: () => space };
}
