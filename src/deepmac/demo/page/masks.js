// The masks of boxes: asked of the server, kept as long as a step of the history needs them.

import { trace } from "./outline.js";
import { post, withPicture } from "./server.js";
import { $, complain, current, Refusal, state } from "./state.js";

const AT_ONCE = 64; // boxes in one request
const KEPT = 600; // masks of a picture, beyond which those of no step go

let busy = false;

const clicks = (box) => box.points ?? [];
const keyOf = (box) => `${box.xyxy} ${state.threshold} ${state.refine} ${clicks(box).join(";")}`;

// {segmentation, iou, score, shape} or null while there is none.
export function maskOf(entry, box) {
  const mask = box.given ?? entry.masks.get(keyOf(box)) ?? null;
  if (mask && mask.shape === undefined) // not enumerable: paths cannot be stored
    Object.defineProperty(mask, "shape", { value: trace(mask.segmentation) });
  return mask;
}

export function scoreOf(mask) {
  if (!mask) return "";
  if (!mask.shape) return "no mask found";
  if (mask.iou != null) return `IoU ${mask.iou.toFixed(2)} expected`;
  return mask.score == null ? "mask of the file" : `${Math.round(100 * mask.score)} % sure`;
}

const missing = (entry) => entry.boxes.all.filter((box) =>
  !box.given && !entry.masks.has(keyOf(box)) && !entry.failed.has(keyOf(box)));

const pointsOf = (boxes) =>
  boxes.some((box) => clicks(box).length) ? { points: boxes.map(clicks) } : {};

// The masks that are still missing; `seen` is told after each answer.
export async function fetchMasks(entry, seen = () => {}) {
  for (let wanted; (wanted = missing(entry)).length;) {
    wanted.sort((a, b) => (b.number === entry.boxes.number) - (a.number === entry.boxes.number));
    const asked = wanted.slice(0, AT_ONCE), keys = asked.map(keyOf);
    try {
      const response = await withPicture(entry, (id) => post(`pictures/${id}/masks`,
        { boxes: asked.map(({ xyxy }) => xyxy), ...pointsOf(asked), threshold: state.threshold, refine: state.refine }));
      const { objects } = await response.json();
      objects.forEach(({ segmentation, iou, score }, index) =>
        entry.masks.set(keys[index], { segmentation, iou, score }));
    } catch (error) {
      keys.forEach((key) => entry.failed.add(key)); // asked again once the box changes
      throw error;
    }
    forget(entry);
    seen();
  }
}

// One request at a time; what changed meanwhile goes into the next one.
export async function refresh(seen) {
  if (busy || !current()) return;
  busy = true;
  $("canvas").setAttribute("aria-busy", "true");
  try {
    for (let entry; (entry = current()) && missing(entry).length;)
      await fetchMasks(entry, () => { complain(""); seen(entry); });
  } catch (error) {
    complain(error instanceof Refusal ? error.message : `This did not work: ${error.message}`);
  } finally {
    busy = false;
    $("canvas").setAttribute("aria-busy", "false");
  }
}

export const isBusy = () => busy;

// Once an answer came after all, boxes that failed may be asked about again.
export const retry = (entry) => entry.failed.clear();

function forget(entry) {
  if (entry.masks.size <= KEPT) return;
  const { all, past, future } = entry.boxes;
  const used = new Set([{ all }, ...past, ...future].flatMap((step) => step.all.map(keyOf)));
  for (const key of entry.masks.keys()) {
    if (entry.masks.size <= KEPT) break;
    if (!used.has(key)) entry.masks.delete(key);
  }
}

// Those of the boxes as they are now, to be stored.
export function keptMasks(entry) {
  const used = new Set(entry.boxes.all.map(keyOf));
  return [...entry.masks].filter(([key]) => used.has(key))
    .map(([key, { segmentation, iou, score }]) => [key, { segmentation, iou, score }]);
}
