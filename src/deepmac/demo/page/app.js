// The page: files in, boxes drawn, masks asked for, results out.

import { Boxes, grip } from "./boxes.js";
import { colorOf, paint } from "./masks.js";
import { overlay, View } from "./view.js";

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), view = new View(canvas);
let picture = null; // {bitmap, width, height, file, id}
let boxes = new Boxes(1, 1);
let limits = null, drag = null, busy = false;

// ---- speaking ----

const say = (text) => { $("status").textContent = text; };
const complain = (text) => { $("error").textContent = text; };

class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal(0, "The server does not answer. Is `deepmac demo` still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refusal(response.status, said.error ?? `The server answered ${response.status}.`);
}

const post = (path, value) => ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value),
});

async function trying(job) {
  complain("");
  try {
    return await job();
  } catch (error) {
    complain(error instanceof Refusal ? error.message : `This did not work: ${error.message}`);
    return undefined;
  }
}

// ---- pictures ----

async function upload(file) {
  if (limits && file.size > limits.megabytes * 1e6)
    throw new Refusal(413, `This file has ${(file.size / 1e6).toFixed(1)} MB, more than the limit ` +
      `of ${limits.megabytes} MB. Save the picture smaller and open it again.`);
  return (await ask("pictures", { method: "POST", body: file })).json();
}

function open(file) {
  return trying(async () => {
    say("Looking at the picture …");
    try {
      const seen = await upload(file);
      const bitmap = await createImageBitmap(file).catch(() => {
        throw new Refusal(415, "This browser cannot show that picture. Open a JPEG, PNG or WebP file.");
      });
      picture?.bitmap.close();
      picture = { bitmap, width: seen.width, height: seen.height, file, id: seen.id };
    } catch (error) {
      say("");
      throw error;
    }
    boxes = new Boxes(picture.width, picture.height);
    $("empty").hidden = true;
    for (const id of ["canvas", "tools", "strength", "save"]) $(id).hidden = false;
    $("stage").classList.add("filled");
    fit();
    canvas.focus({ preventScroll: true });
    say(`${file.name}, ${picture.width} × ${picture.height}. Drag a box around a thing, or press N.`);
  });
}

// The server holds few pictures; one that it let go is sent again.
async function withPicture(job) {
  try {
    return await job(picture.id);
  } catch (error) {
    if (error.status !== 410) throw error;
    picture.id = (await upload(picture.file)).id;
    return job(picture.id);
  }
}

// ---- masks ----

function working(now) {
  busy = now;
  canvas.setAttribute("aria-busy", String(now));
}

// One request at a time; what changed meanwhile goes into the next one.
async function refresh() {
  redraw();
  if (busy || !picture) return;
  working(true);
  try {
    for (let old; (old = boxes.all.filter((box) => box.seen !== box.version)).length;) {
      const now = picture, asked = old.map((box) => ({ box, version: box.version, xyxy: box.xyxy }));
      const response = await withPicture((id) =>
        post(`pictures/${id}/masks`, { boxes: asked.map(({ xyxy }) => xyxy) }));
      const { objects } = await response.json();
      if (picture !== now) continue;
      asked.forEach(({ box, version }, index) => {
        box.seen = version;
        box.score = objects[index].score;
        box.mask = paint(objects[index].segmentation, box.number);
      });
      complain("");
      redraw();
      announce();
    }
  } catch (error) {
    for (const box of boxes.all) box.seen = box.version; // asked again once it changes
    complain(error instanceof Refusal ? error.message : `This did not work: ${error.message}`);
  } finally {
    working(false);
  }
}

function announce() {
  const box = boxes.selected;
  if (!box || drag) return;
  const [x0, y0, x1, y1] = box.xyxy.map(Math.round);
  const score = box.seen !== box.version ? "" :
    box.mask ? `, mask ${Math.round(100 * box.score)} % sure` : ", no mask found";
  say(`Box ${box.number}: ${x1 - x0} × ${y1 - y0} at ${x0}, ${y0}${score}.`);
}

// ---- showing ----

const strength = () => Number($("opacity").value) / 100;

function fit() {
  if (!picture) return;
  const tallest = Math.max(200, window.innerHeight * (window.innerWidth <= 760 ? 0.6 : 0.8));
  view.fit(picture, $("stage").clientWidth, tallest);
  redraw();
}

function redraw() {
  if (!picture) return;
  view.draw(picture, boxes, strength());
  list();
}

function list() {
  const focused = document.activeElement?.dataset?.box;
  const rows = boxes.all.map((box) => {
    const row = document.createElement("li"), pick = document.createElement("button");
    const dot = document.createElement("span"), size = document.createElement("span");
    const drop = document.createElement("button");
    const [x0, y0, x1, y1] = box.xyxy.map(Math.round);
    pick.type = drop.type = "button";
    pick.className = "pick";
    pick.dataset.box = `pick ${box.number}`;
    pick.setAttribute("aria-pressed", String(box === boxes.selected));
    dot.className = "dot";
    dot.style.background = `rgb(${colorOf(box.number).join()})`;
    size.className = "size";
    size.textContent = `${x1 - x0} × ${y1 - y0}` + (box.mask ? `, ${Math.round(100 * box.score)} %` : "");
    pick.append(dot, `Box ${box.number}`, size);
    pick.onclick = () => { boxes.selected = box; redraw(); announce(); };
    drop.className = "drop";
    drop.dataset.box = `drop ${box.number}`;
    drop.textContent = "✕";
    drop.setAttribute("aria-label", `Remove box ${box.number}`);
    drop.onclick = () => remove(box);
    row.append(pick, drop);
    return row;
  });
  $("list").replaceChildren(...rows);
  if (focused) document.querySelector(`[data-box="${focused}"]`)?.focus();
  $("hint").hidden = boxes.all.length > 0;
  const ready = boxes.all.some((box) => box.mask);
  for (const does of ["png", "overlay", "coco"]) button(does).disabled = !ready;
  button("clear").disabled = !boxes.all.length;
}

const button = (does) => document.querySelector(`#tools [data-does=${does}], #save [data-does=${does}]`);

function remove(box) {
  boxes.remove(box);
  redraw();
  say(`Box ${box.number} removed, ${boxes.all.length} left.`);
  if (document.activeElement === document.body) canvas.focus({ preventScroll: true });
}

function full() {
  const most = limits?.boxes ?? 100, is = boxes.all.length >= most;
  if (is) complain(`There are ${most} boxes, which is the limit. Remove one first.`);
  return is;
}

function newBox() {
  if (full()) return;
  const { width, height } = picture;
  boxes.add([width / 3, height / 3, (2 * width) / 3, (2 * height) / 3]);
  refresh();
  announce();
}

// ---- mouse, pen, touch ----

const reach = (event) => (event.pointerType === "touch" ? 22 : 9) / view.scale;

canvas.addEventListener("pointerdown", (event) => {
  if (event.button || !event.isPrimary || !picture) return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  const [x, y] = view.position(event), box = boxes.selected;
  const held = box && grip(box, x, y, reach(event));
  if (held === "edge") drag = { kind: "move", box, from: [x, y] };
  else if (held) drag = { kind: "corner", box, fixed: held.fixed };
  else drag = { kind: "new", box: null, fixed: [x, y], start: [event.clientX, event.clientY] };
});

canvas.addEventListener("pointermove", (event) => {
  if (!picture) return;
  const [x, y] = view.position(event);
  if (!drag) {
    const held = boxes.selected && grip(boxes.selected, x, y, reach(event));
    canvas.style.cursor = held === "edge" ? "move" : held ? "nwse-resize" : "crosshair";
    return;
  }
  if (!event.isPrimary) return;
  if (drag.kind === "move") {
    boxes.moveBy(drag.box, x - drag.from[0], y - drag.from[1]);
    drag.from = [x, y];
  } else if (drag.box) {
    boxes.set(drag.box, [...drag.fixed, x, y]);
  } else if (Math.hypot(event.clientX - drag.start[0], event.clientY - drag.start[1]) > 4) {
    if (full()) return;
    drag.box = boxes.add([...drag.fixed, x, y]);
  } else {
    return;
  }
  refresh();
});

function release(event) {
  if (!drag || !event.isPrimary) return;
  const { kind, box } = drag;
  drag = null;
  if (kind === "new" && !box) {
    boxes.selected = event.type === "pointerup" ? boxes.at(...view.position(event)) : boxes.selected;
    redraw();
  } else {
    refresh();
  }
  announce();
}
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);

// ---- keys ----

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  if (!picture || event.ctrlKey || event.metaKey) return;
  const box = boxes.selected, arrow = ARROWS[event.key];
  if (arrow && box) {
    const step = event.altKey ? 1 : Math.max(1, Math.round(Math.max(picture.width, picture.height) / 100));
    const move = event.shiftKey ? "growBy" : "moveBy";
    boxes[move](box, arrow[0] * step, arrow[1] * step);
    refresh();
    announce();
  } else if (event.key === "n" || event.key === "N") newBox();
  else if (event.key === "]" || event.key === "[") {
    boxes.step(event.key === "]" ? 1 : -1);
    redraw();
    announce();
  } else if ((event.key === "Delete" || event.key === "Backspace") && box) remove(box);
  else if (event.key === "Escape") {
    boxes.selected = null;
    redraw();
    say("No box selected.");
  } else return;
  event.preventDefault();
});

// ---- files in and out ----

async function download(does) {
  const stem = picture.file.name.replace(/\.[^.]*$/, "") || "picture";
  const wanted = { boxes: boxes.all.map((box) => box.xyxy), file_name: picture.file.name };
  if (does === "overlay") {
    const drawn = overlay(picture, boxes, strength());
    save(await new Promise((done) => drawn.toBlob(done, "image/png")), `${stem}_overlay.png`);
    return;
  }
  const [path, name] = does === "coco" ? ["coco.json", `${stem}_coco.json`] : ["masks.png", `${stem}_masks.png`];
  const response = await withPicture((id) => post(`pictures/${id}/${path}`, wanted));
  save(await response.blob(), name);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`${name} saved.`);
}

const DOES = {
  open: () => $("file").click(),
  example: () => trying(async () => {
    const blob = await (await ask("example.png")).blob();
    await open(new File([blob], "example.png", { type: "image/png" }));
  }),
  new: () => { newBox(); canvas.focus({ preventScroll: true }); },
  clear: () => {
    boxes = new Boxes(picture.width, picture.height);
    redraw();
    say("All boxes removed.");
  },
  png: () => trying(() => download("png")),
  overlay: () => trying(() => download("overlay")),
  coco: () => trying(() => download("coco")),
};

for (const element of document.querySelectorAll("[data-does]"))
  element.addEventListener("click", () => DOES[element.dataset.does]());

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file) open(file);
});
$("opacity").addEventListener("input", redraw);
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
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) open(file);
});
window.addEventListener("resize", fit);

trying(async () => {
  const about = await (await ask("about")).json();
  limits = about.limits;
  $("model").textContent = about.model && `model: ${about.model}`;
  $("limits").textContent =
    `JPEG, PNG, WebP, BMP or GIF, up to ${limits.megabytes} MB and ${limits.megapixels} million pixels.`;
});
