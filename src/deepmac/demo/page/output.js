// Results out: files and the clipboard.

import { complete } from "./album.js";
import { cocoOf } from "./formats.js";
import { fetchMasks, maskOf } from "./masks.js";
import { post } from "./server.js";
import { current, Refusal, say, state } from "./state.js";
import { overlay } from "./view.js";

const stem = (name) => name.split("/").at(-1).replace(/\.[^.]*$/, "") || "picture";

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`${name} saved.`);
}

const segmentations = (entry) => entry.boxes.all.map((box) => maskOf(entry, box)?.segmentation ?? []);

function picture(entry, names) {
  const { name, width, height } = entry;
  const classes = names && entry.boxes.all.map((box) => names.indexOf(box.label || "object"));
  return { file_name: name, width, height, segmentations: segmentations(entry), classes };
}

// All pictures with boxes; named after the one picture, or as a whole.
async function everything() {
  const entries = await complete();
  return { entries, name: entries.length === 1 ? stem(entries[0].name) : "pictures" };
}

async function drawn(kind) {
  const entry = current();
  await fetchMasks(entry);
  const canvas = overlay(entry, maskOf.bind(null, entry), state.strength);
  return new Promise((done, failed) => canvas.toBlob((blob) =>
    blob ? done(blob) : failed(new Error("the picture is too large for this browser")), kind, 0.92));
}

const note = () => `masks of drawn boxes, deepmac demo, model ${state.about.model}`;

export const downloads = {
  async png() {
    const { entries, name } = await everything(), several = entries.length > 1;
    const kind = several ? "masks.zip" : "masks.png";
    const response = await post(`downloads/${kind}`, { pictures: entries.map((one) => picture(one)) });
    save(await response.blob(), `${name}_${kind}`);
  },
  async overlay() { // in the picture's own kind: a large photograph takes seconds as a PNG
    const entry = current(), jpeg = entry.file.type === "image/jpeg";
    save(await drawn(jpeg ? "image/jpeg" : "image/png"), `${stem(entry.name)}_overlay.${jpeg ? "jpg" : "png"}`);
  },
  async coco() {
    const { entries, name } = await everything();
    save(new Blob([json(entries)], { type: "application/json" }), `${name}_coco.json`);
  },
  async yolo() {
    const { entries, name } = await everything();
    const names = [...new Set(entries.flatMap((one) => one.boxes.all.map((box) => box.label || "object")))];
    const response = await post("downloads/yolo.zip",
      { pictures: entries.map((one) => picture(one, names)), classes: names });
    save(await response.blob(), `${name}_yolo.zip`);
  },
  async copyOverlay() {
    if (!navigator.clipboard?.write || !window.ClipboardItem)
      throw new Refusal(0, "This browser copies pictures from https and from localhost only: download the overlay instead.");
    await navigator.clipboard.write([new ClipboardItem({ "image/png": drawn("image/png") })]);
    say("Overlay copied.");
  },
  async copyCoco() {
    const { entries } = await everything(), text = json(entries);
    if (navigator.clipboard?.writeText) await navigator.clipboard.writeText(text);
    else {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const copied = document.execCommand("copy");
      area.remove();
      if (!copied) throw new Refusal(0, "This browser does not let a page copy: download the file instead.");
    }
    say("COCO json copied.");
  },
};

const json = (entries) => JSON.stringify(cocoOf(entries, maskOf, note()));
