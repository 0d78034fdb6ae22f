// Boxes from files: COCO json and YOLO text; and the COCO json of what is there.

import { runs } from "./outline.js";
import { post } from "./server.js";
import { learnClass, Refusal, state } from "./state.js";

const stem = (name) => name.replace(/\.[^./]*$/, "");
const base = (name) => name.split(/[\\/]/).at(-1);

export const isBoxFile = (file) => /\.(json|txt|ya?ml|names)$/i.test(file.name);

// Boxes of files by picture: [{name, boxes}], `name` a path or the stem of one; boxes as
// {xyxy or relative, label, segmentation}.
async function read(files) {
  const names = await classNames(files), found = [];
  for (const file of files) {
    const text = await file.text();
    if (/\.json$/i.test(file.name)) found.push(...coco(text, file.name));
    else if (/\.txt$/i.test(file.name) && !isNames(file))
      found.push({ name: stem(file.name), boxes: yolo(text, names, file.name) });
  }
  return found;
}

const isNames = (file) => /^(classes|obj|predefined_classes|labels)\.(txt|names)$|\.ya?ml$/i.test(file.name);

async function classNames(files) {
  const file = files.find(isNames);
  if (!file) return [];
  const text = await file.text();
  if (!/\.ya?ml$/i.test(file.name)) return text.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  const bare = (word) => word.trim().replace(/^(['"])(.*)\1$/, "$2");
  const flow = text.match(/^names:\s*\[([^\]]*)\]/m);
  if (flow) return flow[1].split(",").map(bare);
  const block = text.match(/^names:[^\S\n]*\n((?:[^\S\n]*(?:-|\d+\s*:).*\n?)+)/m);
  const names = [];
  for (const line of block?.[1].split("\n") ?? []) {
    const [, number, name] = line.match(/^\s*(?:-|(\d+)\s*:)\s*(.*)$/) ?? [];
    if (name) names[number === undefined ? names.length : Number(number)] = bare(name);
  }
  return names;
}

function coco(text, file) {
  let content = null;
  try {
    content = JSON.parse(text);
  } catch { /* said below */ }
  if (!Array.isArray(content?.images) || !Array.isArray(content.annotations))
    throw new Refusal(0, `${file} is no COCO json: it needs the lists "images" and "annotations".`);
  const names = new Map((content.categories ?? []).map(({ id, name }) => [id, String(name ?? id)]));
  const pictures = new Map(content.images.map((image) =>
    [image.id, { name: String(image.file_name), width: image.width, height: image.height, boxes: [] }]));
  for (const { image_id: image, bbox, category_id: category, segmentation, iscrowd } of content.annotations) {
    if (iscrowd || !Array.isArray(bbox) || bbox.length !== 4 || !bbox.every(Number.isFinite)) continue;
    const [x, y, width, height] = bbox;
    if (width > 0 && height > 0) pictures.get(image)?.boxes.push({
      xyxy: [x, y, x + width, y + height], label: names.get(category) ?? "", segmentation,
    });
  }
  return [...pictures.values()].filter(({ boxes }) => boxes.length);
}

// Lines of class x y width height (and a score), or class and an outline; relative to the picture.
function yolo(text, names, file) {
  const boxes = [];
  text.split(/\r?\n/).forEach((line, number) => {
    if (!line.trim()) return;
    const [kind, ...values] = line.trim().split(/\s+/).map(Number);
    if (!Number.isInteger(kind) || !values.every(Number.isFinite) || values.length < 4 ||
        (values.length > 5 && values.length % 2))
      throw new Refusal(0, `${file}, line ${number + 1} is no YOLO box (class x y width height).`);
    const label = names[kind] ?? String(kind);
    if (values.length < 6) {
      const [x, y, w, h] = values;
      boxes.push({ relative: [x - w / 2, y - h / 2, x + w / 2, y + h / 2], label });
    } else {
      const xs = values.filter((_, i) => !(i % 2)), ys = values.filter((_, i) => i % 2);
      boxes.push({ relative: [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)], label, outline: values });
    }
  });
  return boxes;
}

// Hands the boxes of files to the open pictures; how many boxes and pictures.
export async function loadBoxes(files) {
  const found = await read(files);
  const count = { boxes: 0, pictures: 0 };
  for (const entry of state.album) {
    const mine = found.find(({ name }) => name === entry.name) ??
      found.find(({ name }) => base(name) === base(entry.name) || base(name) === stem(base(entry.name)));
    if (!mine) continue;
    entry.waiting = [...(entry.waiting ?? []), ...mine.boxes];
    entry.waitingSize = mine.width ? [mine.width, mine.height] : null;
    count.boxes += mine.boxes.length;
    count.pictures += 1;
  }
  if (!count.pictures)
    throw new Refusal(0, found.length
      ? `No open picture belongs to these boxes, which are of ${found[0].name}${found.length > 1 ? " and others" : ""}. Open the pictures first.`
      : "There are no boxes in this file.");
  for (const entry of state.album) if (entry.boxes) await applyLoaded(entry);
  return count;
}

// Boxes that were loaded for a picture become its boxes, in one step that can be undone. A box that
// is there already is not laid on top of itself.
export async function applyLoaded(entry) {
  if (!entry.waiting) return;
  const { width, height, boxes } = entry, [w, h] = entry.waitingSize ?? [width, height];
  const waiting = entry.waiting.slice(0, Math.max(0, state.about.limits.boxes - boxes.all.length));
  entry.waiting = null;
  const raw = waiting.map(({ outline, segmentation }) =>
    outline ? [outline.map((v, i) => v * (i % 2 ? height : width))] : segmentation ?? []);
  const masks = await readable(raw, width, height, w === width && h === height);
  waiting.forEach(({ xyxy, relative, label }, index) => {
    const at = xyxy
      ? xyxy.map((v, i) => (i % 2 ? (v * height) / h : (v * width) / w))
      : relative.map((v, i) => v * (i % 2 ? height : width));
    const inside = boxes.inside(at);
    if (boxes.all.some((box) => box.label === label && box.xyxy.every((v, i) => Math.abs(v - inside[i]) < 0.5))) return;
    boxes.add(at, { label, given: masks[index] });
    learnClass(label);
  });
  boxes.selected = boxes.all[0];
  boxes.commit();
}

// Masks of a file as the page draws them; null where there is none, or none that can be read.
async function readable(raw, width, height, fits) {
  const none = (one) => !one || (Array.isArray(one) && !one.some((ring) => ring?.length));
  const wanted = fits ? raw.filter((one) => !none(one)) : [];
  if (!wanted.length) return raw.map(() => null);
  const response = await post("rles", { width, height, segmentations: wanted });
  const { segmentations } = await response.json();
  let at = 0;
  return raw.map((one) => (none(one) ? null : { segmentation: segmentations[at++] }));
}

// All pictures with their boxes and masks as one data set.
export function cocoOf(entries, maskOf, note) {
  const categories = new Map(), annotations = [];
  const category = (name) => {
    if (!categories.has(name)) categories.set(name, categories.size + 1);
    return categories.get(name);
  };
  const images = entries.map(({ name, width, height }, index) =>
    ({ id: index + 1, file_name: name, width, height }));
  entries.forEach((entry, index) => {
    for (const box of entry.boxes.all) {
      const [x0, y0, x1, y1] = box.xyxy, mask = maskOf(entry, box);
      const cent = (value) => Math.round(value * 100) / 100;
      const score = mask?.iou ?? mask?.score;
      annotations.push({
        id: annotations.length + 1, image_id: index + 1, category_id: category(box.label || "object"),
        iscrowd: 0, bbox: [x0, y0, cent(x1 - x0), cent(y1 - y0)],
        area: mask?.shape ? areaOf(mask.segmentation) : 0,
        segmentation: mask?.shape ? mask.segmentation : [],
        ...(score == null ? {} : { mask_score: score }),
      });
    }
  });
  return {
    info: { description: note }, images,
    categories: [...categories].map(([name, id]) => ({ id, name, supercategory: "" })), annotations,
  };
}

function areaOf({ counts }) {
  return runs(counts).reduce((sum, count, index) => sum + (index % 2 ? count : 0), 0);
}
