// A data set that is put right: boxes from the server's file, and back into it after every step.

import { maskOf } from "./masks.js";
import { ask, post } from "./server.js";
import { complain, learnClass, Refusal, say } from "./state.js";

export async function jobPictures() {
  const { pictures, classes, file } = await (await ask("job")).json();
  for (const name of classes) learnClass(name);
  return { pictures, file };
}

// The boxes of a picture as they are in the file.
export async function fillJob(entry) {
  const { boxes } = await (await ask(`job/${entry.job}`)).json();
  entry.asRead = new Map();
  entry.ids = new Map();
  for (const { id, xyxy, label, segmentation, iou, source, marked } of boxes) {
    const given = segmentation && { segmentation, iou, source };
    const box = entry.boxes.add(xyxy, { id, label, given, marked });
    entry.asRead.set(id, { xyxy: box.xyxy, given: box.given });
    learnClass(label);
  }
  entry.boxes.selected = entry.boxes.all.find(({ marked }) => marked) ?? entry.boxes.all[0];
  entry.boxes.mark = { all: entry.boxes.all, number: entry.boxes.number };
  entry.saved = entry.boxes.all;
}

let saving = Promise.resolve();

// Saves a picture's boxes if they have changed since; one after the other.
export function saveJob(entry, file) {
  const { all } = entry.boxes;
  if (all === entry.saved) return saving;
  saving = saving.then(async () => {
    if (all !== entry.boxes.all) return; // a newer state follows
    const boxes = all.map((box) => {
      const read = entry.asRead.get(box.id);
      const kept = Boolean(read) && read.given === box.given && read.xyxy.every((v, i) => v === box.xyxy[i]);
      return {
        id: box.id ?? entry.ids.get(box.number) ?? null, xyxy: box.xyxy, label: box.label,
        segmentation: maskOf(entry, box)?.segmentation ?? null, kept,
      };
    });
    const { ids } = await (await post(`job/${entry.job}`, { boxes })).json();
    all.forEach((box, index) => entry.ids.set(box.number, ids[index]));
    entry.saved = all;
    say(`Saved in ${file}.`);
  }).catch((error) => {
    complain(error instanceof Refusal ? error.message : `This was not saved: ${error.message}`);
  });
  return saving;
}
