// The page: what the parts do together.

import { close, entryOf, go, keep, openFiles, restore, show, whenShown } from "./album.js";
import { isBoxFile, loadBoxes } from "./formats.js";
import { jobPictures, saveJob } from "./job.js";
import { wireKeys } from "./keys.js";
import { list, wireList } from "./list.js";
import { fetchMasks, isBusy, maskOf, refresh, retry, scoreOf } from "./masks.js";
import { downloads } from "./output.js";
import { wirePointer } from "./pointer.js";
import { ask } from "./server.js";
import { $, complain, current, learnClass, recall, remember, say, state, trying } from "./state.js";
import { tidy } from "./store.js";
import { View } from "./view.js";

const canvas = $("canvas"), view = new View(canvas);
let jobFile = null; // the name of the file that is put right

// ---- showing ----

let due = false;

function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const entry = current();
    if (entry) view.draw(entry, (box) => maskOf(entry, box), state.strength, page.coarse);
    $("zoom").textContent = `${Math.round(100 * view.scale)} %`;
  });
}

const button = (does) => document.querySelectorAll(`[data-does=${does}]`);

function update() {
  redraw();
  list();
  const entry = current(), boxes = entry?.boxes, any = Boolean(boxes?.all.length);
  const able = {
    undo: boxes?.past.length > 0, redo: boxes?.future.length > 0, clear: any, new: Boolean(entry), close: Boolean(entry),
    back: state.at > 0, on: state.at < state.album.length - 1,
  };
  const ready = any && boxes.all.some((box) => maskOf(entry, box)?.shape);
  const others = state.album.some((one) => one !== entry && (one.waiting || one.boxes?.all.length));
  for (const does of ["png", "coco", "yolo", "copyCoco"]) able[does] = ready || others;
  for (const does of ["overlay", "copyOverlay"]) able[does] = ready;
  for (const [does, is] of Object.entries(able)) for (const one of button(does)) one.disabled = !is;
}

let news = ""; // of the last step: told with the box until something else happens, masks included

function announce() {
  const entry = current(), box = entry?.boxes.selected;
  if (!box || pointer.dragging()) return;
  const [x0, y0, x1, y1] = box.xyxy.map(Math.round), score = scoreOf(maskOf(entry, box));
  const name = box.label ? `Box ${box.number} (${box.label})` : `Box ${box.number}`;
  say(`${news}${name}: ${x1 - x0} × ${y1 - y0} at ${x0}, ${y0}${score && `, ${score}`}.`);
}

// Something moves; no step has ended yet.
function changed() {
  update();
  return refresh(answered).then(saved);
}

// In a data set that is put right every step goes into the file, once its masks are there.
function saved() {
  if (jobFile && current() && !isBusy() && !pointer.dragging()) return saveJob(current(), jobFile);
  return undefined;
}

function answered(entry) {
  if (!pointer.dragging()) keep(entry);
  update();
  announce();
}

// A step has ended.
async function done(key = null, said = "") {
  const entry = current();
  news = said;
  if (entry.boxes.commit(key)) retry(entry);
  keep(entry);
  update();
  announce();
  await refresh(answered);
  await saved();
}

whenShown((entry) => {
  for (const id of ["canvas", "corner"]) $(id).hidden = !entry;
  $("empty").hidden = Boolean(entry);
  $("place").textContent = state.album.length > 1 ? `${state.at + 1} / ${state.album.length}` : "";
  $("file-name").textContent = entry?.name ?? "";
  document.body.classList.toggle("working", Boolean(entry));
  view.resize();
  if (entry) {
    view.show(entry);
    if (document.activeElement === document.body) canvas.focus({ preventScroll: true });
    if (entry.job !== null && entry.boxes.selected) view.reveal(entry.boxes.selected.xyxy);
  } else say("");
  changed();
});

// ---- what can be done ----

function full() {
  const most = state.about?.limits.boxes ?? 2000, is = current().boxes.all.length >= most;
  if (is) complain(`There are ${most} boxes, which is the limit. Remove one first.`);
  return is;
}

const lastLabel = () => current().boxes.selected?.label ?? "";

const page = {
  view, redraw, changed, full, coarse: matchMedia("(pointer: coarse)").matches,
  space: () => keys.space(),
  add(xyxy) { return current().boxes.add(xyxy, { label: lastLabel() }); },
  finished(moved) {
    if (moved) done();
    else {
      news = "";
      update();
      announce();
    }
  },
  point(x, y, label, reach) {
    const { boxes } = current(), box = boxes.selected;
    const said = boxes.point(box, x, y, label, reach), count = boxes.selected.points.length;
    done(null, `Point ${said}, ${count} in all. Ctrl+Z takes it back. `);
  },
  newBox() {
    if (full()) return;
    const { boxes } = current();
    boxes.add(boxes.free(view.shown()), { label: lastLabel() });
    done();
  },
  arrow([dx, dy], fine, grow) {
    const { boxes, width, height } = current(), box = boxes.selected;
    if (!box) {
      view.pan(-60 * dx, -60 * dy);
      redraw();
      return;
    }
    const step = fine ? 1 : Math.max(1, Math.round(Math.max(width, height) / 100));
    boxes[grow ? "growBy" : "moveBy"](box, dx * step, dy * step);
    view.reveal(boxes.selected.xyxy);
    done(`${grow}${box.number}`);
  },
  pick(number) {
    const { boxes } = current();
    boxes.selected = boxes.get(number);
    boxes.commit();
    view.reveal(boxes.selected.xyxy);
    news = "";
    update();
    announce();
  },
  step(by) {
    const { boxes } = current();
    boxes.step(by);
    if (boxes.selected) page.pick(boxes.number);
  },
  none() {
    const { boxes } = current();
    if (pointer.dragging()) {
      pointer.drop();
      boxes.revert();
      changed();
      return;
    }
    boxes.selected = null;
    update();
    say("No box selected.");
  },
  remove(box) {
    const { boxes } = current();
    boxes.remove(box);
    done();
    say(`Box ${box.number} removed, ${boxes.all.length} left. Ctrl+Z brings it back.`);
    if (document.activeElement === document.body) canvas.focus({ preventScroll: true });
  },
  name(label) {
    const { boxes } = current();
    if (!boxes.selected || boxes.selected.label === label) return;
    boxes.change(boxes.selected, { label });
    learnClass(label);
    done();
  },
  undo() { travel("undo", "Undone"); },
  redo() { travel("redo", "Done again"); },
  zoom(by) {
    view.zoom(by);
    redraw();
  },
  fit() {
    view.fit();
    redraw();
  },
  go: (by) => trying(async () => {
    if (jobFile) await page.save();
    await go(by);
  }),
  save: null,
  saveNow: () => trying(page.save),
};

function travel(which, said) {
  const entry = current();
  if (!entry.boxes[which]()) {
    say(which === "undo" ? "There is nothing to undo." : "There is nothing to do again.");
    return;
  }
  done();
  say(`${said}: ${entry.boxes.all.length} boxes.`);
}

const pointer = wirePointer(page), keys = wireKeys(page);
wireList({
  pick: page.pick,
  drop: (number) => page.remove(current().boxes.get(number)),
  name: page.name,
});

// Pictures, or boxes for those that are open, or both.
function take(files) {
  const pictures = files.filter((file) => !isBoxFile(file) && !file.name.startsWith("."));
  const boxFiles = files.filter(isBoxFile);
  return trying(async () => {
    await started;
    if (pictures.length) await openFiles(pictures);
    if (!boxFiles.length) return;
    const count = await loadBoxes(boxFiles);
    for (const entry of state.album) if (entry.boxes) keep(entry);
    update();
    await refresh(answered);
    say(`${count.boxes} boxes loaded for ${count.pictures} picture${count.pictures > 1 ? "s" : ""}.`);
  });
}

const DOES = {
  open: () => $("file").click(),
  folder: () => $("folder").click(),
  load: () => $("boxes").click(),
  example: () => trying(async () => {
    await started;
    const { file_name: name, boxes } = state.about.example;
    const blob = await (await ask("example.jpg")).blob();
    await openFiles([new File([blob], name, { type: "image/jpeg" })]);
    const entry = current();
    if (!entry.boxes.all.length) {
      for (const { xyxy, label } of boxes) {
        entry.boxes.add(xyxy, { label });
        learnClass(label);
      }
      await done();
    }
  }),
  new: () => { page.newBox(); canvas.focus({ preventScroll: true }); },
  clear: () => {
    const { boxes } = current(), count = boxes.all.length;
    boxes.clear();
    done();
    say(`${count} boxes removed. Ctrl+Z brings them back.`);
  },
  close: () => trying(close),
  undo: page.undo, redo: page.redo, fit: page.fit,
  back: () => page.go(-1), on: () => page.go(1),
  closer: () => page.zoom(1.25), further: () => page.zoom(0.8),
  ...Object.fromEntries(Object.entries(downloads).map(([name, job]) => [name, () => trying(job)])),
};

for (const element of document.querySelectorAll("[data-does]"))
  element.addEventListener("click", () => DOES[element.dataset.does]());

for (const id of ["file", "folder", "boxes"]) $(id).addEventListener("change", () => {
  const files = [...$(id).files];
  $(id).value = "";
  if (files.length) take(id === "folder" ? files.filter((file) => PICTURE.test(file.name) || isBoxFile(file)) : files);
});
const PICTURE = /\.(jpe?g|png|webp|bmp|gif|tiff?|jp2|avif|hei[cf])$/i;

$("opacity").addEventListener("input", () => {
  state.strength = Number($("opacity").value) / 100;
  remember();
  redraw();
});
$("threshold").addEventListener("input", () => {
  const own = state.about.threshold, value = Number($("threshold").value) / 100;
  state.threshold = Math.abs(value - own) < 0.006 ? own : value;
  $("threshold-value").textContent = state.threshold.toFixed(2);
  remember();
  if (current()) changed();
});

$("refine").addEventListener("input", () => {
  state.refine = $("refine").value;
  remember();
  if (current()) changed();
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("stage").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  const files = [...event.dataTransfer.files];
  if (files.length) take(files);
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData?.files ?? []];
  if (files.length) take(files);
});
new ResizeObserver(() => { view.resize(); redraw(); }).observe($("stage"));

const started = trying(async () => {
  state.about = await (await ask("about")).json();
  const { model, limits, job } = state.about;
  recall(state.about);
  document.body.classList.toggle("clicks", Boolean(state.about.clicks));
  $("model").textContent = model && `model: ${model}`;
  $("limits").textContent =
    `JPEG, PNG, WebP, TIFF, BMP or GIF, up to ${limits.megabytes} MB and ${limits.megapixels} million pixels.`;
  $("opacity").value = 100 * state.strength;
  $("threshold").value = Math.round(100 * state.threshold);
  $("threshold-value").textContent = state.threshold.toFixed(2);
  $("refine").replaceChildren(...state.about.refines.map((name) => new Option(name, name)));
  $("refine").value = state.refine;
  update();
  if (job) {
    const { pictures, file } = await jobPictures();
    jobFile = file;
    document.body.classList.add("job");
    $("job").textContent = `Changes are saved in ${file}.`;
    page.save = async () => { // also what still waits for its masks
      await fetchMasks(current());
      await saveJob(current(), file);
    };
    window.addEventListener("beforeunload", (event) => {
      if (current()?.boxes && current().boxes.all !== current().saved) event.preventDefault();
    });
    state.album = pictures.map(({ file_name: name }, number) => entryOf(name, null, { job: number }));
    await show(0);
  } else {
    await restore();
    tidy();
  }
});
