// The open pictures: files in, one of them shown, their boxes kept and brought back.

import { Boxes } from "./boxes.js";
import { applyLoaded } from "./formats.js";
import { fillJob } from "./job.js";
import { fetchMasks, keptMasks } from "./masks.js";
import { ask, upload } from "./server.js";
import { complain, current, learnClass, Refusal, say, state } from "./state.js";
import { keepBoxes, keepFiles, keyOf, readBoxes, readFiles } from "./store.js";
import { shrink } from "./view.js";

// An entry: {name, file, key, width, height, server, size, boxes, masks, failed, levels, waiting,
// job}: `levels` are the picture and smaller copies of it while it is shown, `waiting` boxes that
// were loaded for it, `job` its number in a data set that is put right.
export function entryOf(name, file, more = {}) {
  return {
    name, file, key: null, width: 0, height: 0, server: null, size: null, boxes: null,
    masks: new Map(), failed: new Set(), levels: [], waiting: null, job: null, ...more,
  };
}

let shown = () => {}; // told when another picture is shown
export const whenShown = (job) => { shown = job; };

// New pictures after those that are open; the first of them is shown.
export async function openFiles(files) {
  const before = state.at, first = state.album.length;
  for (const file of files) {
    const name = file.webkitRelativePath?.split("/").slice(1).join("/") || file.name;
    state.album.push(entryOf(name, file));
  }
  try {
    await show(first);
  } catch (error) {
    if (files.length === 1) {
      state.album.splice(first, 1);
      state.at = Math.min(before, state.album.length - 1);
    }
    throw error;
  }
  keepFiles(state.album, state.at);
}

// What is known of a picture, its masks aside. The server sees it once.
async function load(entry) {
  if (entry.boxes) return;
  if (!entry.file && entry.job !== null) {
    const blob = await (await ask(`job/${entry.job}/picture`)).blob();
    entry.file = new File([blob], entry.name);
  }
  const [seen, key] = await Promise.all([upload(entry.file, entry.size), keyOf(entry.file)]);
  entry.server = seen.id;
  entry.key = key;
  [entry.width, entry.height] = [seen.width, seen.height];
  const kept = entry.job === null ? await readBoxes(key) : undefined;
  const sound = kept?.width === seen.width && kept.height === seen.height;
  entry.boxes = new Boxes(seen.width, seen.height, sound ? kept : null);
  if (sound) for (const [name, mask] of kept.masks) entry.masks.set(name, mask);
  for (const { label } of entry.boxes.all) learnClass(label);
  if (entry.job !== null) await fillJob(entry);
  await applyLoaded(entry);
}

async function decode(entry) {
  const good = (bitmap) => bitmap?.width === entry.width && bitmap.height === entry.height;
  let bitmap = await createImageBitmap(entry.file).catch(() => null);
  if (!good(bitmap)) { // a kind or a turn that the browser does not know: as the server sees it
    const blob = await (await ask(`pictures/${entry.server}/picture.png`)).blob();
    bitmap = await createImageBitmap(blob);
  }
  entry.levels = [bitmap];
}

let wanted = 0;

export async function show(at) {
  const turn = ++wanted, entry = state.album[at];
  if (!entry) return;
  say("Looking at the picture …");
  try {
    await load(entry);
    if (!entry.levels.length) await decode(entry);
  } catch (error) {
    say("");
    if (error instanceof Refusal && state.album.length > 1 && at !== state.at)
      throw new Refusal(error.status, `${entry.name}: ${error.message}`);
    throw error;
  }
  if (turn !== wanted) return;
  const twin = state.album.find((one) => one !== entry && one.key === entry.key && one.name === entry.name);
  if (twin && entry.job === null) { // it is open already
    state.album.splice(state.album.indexOf(entry), 1);
    entry.levels.forEach((image) => image.close());
    return show(state.album.indexOf(twin));
  }
  for (const other of state.album) if (other !== entry && other.levels.length) {
    other.levels.forEach((image) => image.close());
    other.levels = [];
  }
  state.at = state.album.indexOf(entry);
  shown(entry);
  const count = state.album.length > 1 ? ` (${state.at + 1} of ${state.album.length})` : "";
  say(`${entry.name}${count}, ${entry.width} × ${entry.height}. Drag a box around a thing, or press N.`);
  shrink(entry.levels[0], (level) => {
    const still = current() === entry && entry.levels.length > 0;
    if (still) entry.levels.push(level);
    return still;
  });
}

export async function go(by) {
  const at = state.at + by;
  if (at < 0 || at >= state.album.length) return;
  await show(at);
  keepFiles(state.album, state.at);
}

// The picture is no longer open; its boxes stay kept for when it is opened again.
export async function close() {
  const entry = current();
  if (!entry) return;
  entry.levels.forEach((image) => image.close());
  state.album.splice(state.at, 1);
  const next = Math.min(state.at, state.album.length - 1);
  state.at = -1;
  keepFiles(state.album, next);
  if (next >= 0) await show(next);
  else shown(null);
}

// Everything that a file of all pictures needs: pictures that have not been shown yet are looked at.
export async function complete() {
  for (const entry of state.album) {
    if (!entry.boxes) {
      if (!entry.waiting && entry.job === null && !(await readBoxes(await keyOf(entry.file)))) continue;
      say(`Masks of ${entry.name} …`);
      await load(entry);
    }
    await fetchMasks(entry);
  }
  return state.album.filter((entry) => entry.boxes?.all.length);
}

// ---- the next visit ----

export function keep(entry) {
  if (entry.job !== null || !entry.key) return;
  const { width, height } = entry;
  keepBoxes(entry.key, { width, height, ...entry.boxes.kept(), masks: keptMasks(entry) });
}

export async function restore() {
  const kept = await readFiles();
  if (!kept?.list?.length) return;
  state.album = kept.list.map(({ file, name }) => entryOf(name, file));
  try {
    await show(Math.min(kept.shown, state.album.length - 1));
  } catch (error) {
    state.album = [];
    complain(error.message);
  }
}
