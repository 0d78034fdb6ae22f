// Where the picture stands on the canvas, and drawing it, its masks and its boxes.

import { colorOf, pathOf } from "./outline.js";

const CLOSEST = 40; // screen pixels a picture pixel
const TAG = 22; // height of the selected box's name plate, screen pixels

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.scale = 1; // screen pixels a picture pixel
    this.left = this.top = 0; // of the picture on the canvas, screen pixels
    this.width = this.height = 1; // of the canvas, screen pixels
    this.picture = { width: 1, height: 1 };
    this.fitted = true;
    this.tag = null; // where the name plate is, [x0, y0, x1, y1] on the canvas
  }

  // The canvas fills its room.
  resize() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    const density = window.devicePixelRatio || 1;
    [this.width, this.height] = [Math.max(1, clientWidth), Math.max(1, clientHeight)];
    this.canvas.width = Math.round(this.width * density);
    this.canvas.height = Math.round(this.height * density);
    if (this.fitted) this.fit();
    else this.#settle();
  }

  show(picture) {
    this.picture = picture;
    this.fit();
  }

  get fitScale() {
    return Math.min(this.width / this.picture.width, this.height / this.picture.height, 8);
  }

  fit() {
    this.scale = this.fitScale;
    this.left = (this.width - this.picture.width * this.scale) / 2;
    this.top = (this.height - this.picture.height * this.scale) / 2;
    this.fitted = true;
    this.#settle();
  }

  // Around a point of the canvas, which stays where it is.
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const least = this.fitScale / 2, most = Math.max(CLOSEST, this.fitScale);
    const scale = Math.min(Math.max(this.scale * factor, least), most);
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.#settle();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.#settle();
  }

  // A part of the picture (xyxy) comes into sight if it is not there.
  reveal([x0, y0, x1, y1]) {
    const shown = this.shown();
    if (x0 >= shown[0] && y0 >= shown[1] && x1 <= shown[2] && y1 <= shown[3]) return;
    if ((x1 - x0) * this.scale > this.width || (y1 - y0) * this.scale > this.height) {
      this.scale = Math.max(this.fitScale,
        0.9 * Math.min(this.width / (x1 - x0), this.height / (y1 - y0)));
    }
    this.left = this.width / 2 - ((x0 + x1) / 2) * this.scale;
    this.top = this.height / 2 - ((y0 + y1) / 2) * this.scale;
    this.#settle();
  }

  // What of the picture is in sight, xyxy in its pixels.
  shown() {
    const { width, height } = this.picture;
    return [
      Math.max(0, -this.left / this.scale), Math.max(0, -this.top / this.scale),
      Math.min(width, (this.width - this.left) / this.scale),
      Math.min(height, (this.height - this.top) / this.scale),
    ];
  }

  // A picture that is smaller than the canvas stays within it, a larger one covers its middle.
  #settle() {
    const keep = (offset, size, room) => size <= room
      ? Math.min(Math.max(offset, 0), room - size)
      : Math.min(Math.max(offset, room / 2 - size), room / 2);
    this.left = keep(this.left, this.picture.width * this.scale, this.width);
    this.top = keep(this.top, this.picture.height * this.scale, this.height);
    this.canvas.dataset.view = [this.scale, this.left, this.top].map((v) => v.toFixed(4)).join(" ");
  }

  // Picture pixels of a pointer event.
  position(event) {
    const [x, y] = this.onCanvas(event);
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  onCanvas(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  draw(entry, maskOf, strength, coarse) {
    const context = this.canvas.getContext("2d", { alpha: false });
    const density = this.canvas.width / this.width, shown = this.shown();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(this.canvas).backgroundColor;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(density, 0, 0, density, 0, 0);
    this.#picture(context, entry, shown, density);
    const { boxes } = entry;
    context.save();
    context.translate(this.left, this.top);
    context.scale(this.scale, this.scale);
    for (const box of boxes.all) layer(context, box, maskOf(box), strength, this.scale, 1.5, shown);
    context.restore();
    const selected = boxes.selected;
    for (const box of boxes.all)
      if (box !== selected && meet(box.xyxy, shown)) this.#frame(context, box, 1.5);
    this.tag = null;
    if (selected) {
      this.#frame(context, selected, 2);
      this.#handles(context, selected, coarse ? 12 : 9);
      this.#plate(context, selected);
      this.#points(context, selected, coarse ? 8 : 6);
    }
  }

  // Only what is in sight, from the smallest copy that is sharp enough.
  #picture(context, { levels }, [x0, y0, x1, y1], density) {
    if (!levels.length || x1 <= x0 || y1 <= y0) return;
    const wanted = this.picture.width * this.scale * density;
    const image = levels.filter((one) => one.width >= wanted).at(-1) ?? levels[0];
    const shrunk = image.width / this.picture.width;
    context.imageSmoothingEnabled = this.scale * density < 10;
    context.imageSmoothingQuality = "low";
    context.drawImage(image, x0 * shrunk, y0 * shrunk, (x1 - x0) * shrunk, (y1 - y0) * shrunk,
      this.left + x0 * this.scale, this.top + y0 * this.scale,
      (x1 - x0) * this.scale, (y1 - y0) * this.scale);
  }

  #onScreen({ xyxy: [x0, y0, x1, y1] }) {
    const x = (v) => this.left + v * this.scale, y = (v) => this.top + v * this.scale;
    return [x(x0), y(y0), x(x1), y(y1)];
  }

  #frame(context, box, line) {
    const [x0, y0, x1, y1] = this.#onScreen(box);
    for (const [style, width] of [["#000a", line + 1.5], [css(box.number), line]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }

  #handles(context, box, side) {
    const [x0, y0, x1, y1] = this.#onScreen(box);
    const points = [[x0, y0], [x1, y0], [x0, y1], [x1, y1]];
    if (x1 - x0 > 5 * side) points.push([(x0 + x1) / 2, y0], [(x0 + x1) / 2, y1]);
    if (y1 - y0 > 5 * side) points.push([x0, (y0 + y1) / 2], [x1, (y0 + y1) / 2]);
    context.fillStyle = "#fff";
    context.strokeStyle = "#000";
    context.lineWidth = 1;
    for (const [x, y] of points) {
      context.fillRect(x - side / 2, y - side / 2, side, side);
      context.strokeRect(x - side / 2, y - side / 2, side, side);
    }
  }

  // Clicks: a plus on the thing, a minus beside it.
  #points(context, { points = [] }, radius) {
    for (const [x, y, label] of points) {
      const [left, top] = this.#onScreen({ xyxy: [x, y, x, y] });
      context.beginPath();
      context.arc(left, top, radius, 0, 2 * Math.PI);
      context.fillStyle = label ? "#0a7d32" : "#c01c28";
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.fill();
      context.stroke();
      context.beginPath();
      context.moveTo(left - radius / 2, top);
      context.lineTo(left + radius / 2, top);
      if (label) {
        context.moveTo(left, top - radius / 2);
        context.lineTo(left, top + radius / 2);
      }
      context.stroke();
    }
  }

  // The name plate over the box, by which it is moved.
  #plate(context, box) {
    const [x0, y0, , y1] = this.#onScreen(box);
    const text = `✥ ${box.label || `Box ${box.number}`}`;
    context.font = "600 13px system-ui, sans-serif";
    const width = Math.min(context.measureText(text).width + 14, 240);
    const left = Math.min(Math.max(x0, 0), Math.max(0, this.width - width));
    let top = y0 - TAG - 7;
    if (top < 0) top = y1 + 7 + TAG < this.height ? y1 + 7 : Math.max(y0, 0) + 7;
    this.tag = [left, top, left + width, top + TAG];
    const [red, green, blue] = colorOf(box.number);
    context.fillStyle = css(box.number);
    context.beginPath();
    context.roundRect(left, top, width, TAG, 5);
    context.fill();
    context.fillStyle = red * 0.3 + green * 0.59 + blue * 0.11 > 120 ? "#000" : "#fff";
    context.textBaseline = "middle";
    context.fillText(text, left + 7, top + TAG / 2 + 1, width - 14);
  }
}

const css = (number) => `rgb(${colorOf(number).join()})`;
const meet = (a, b) => a[0] < b[2] && a[2] > b[0] && a[1] < b[3] && a[3] > b[1];

// A mask: its area see-through, its outline `line` screen pixels wide.
function layer(context, box, mask, strength, scale, line, shown) {
  const shape = mask?.shape;
  if (!shape || (shown && !meet(shape.frame, shown))) return;
  const path = pathOf(shape, scale);
  context.fillStyle = context.strokeStyle = css(box.number);
  context.globalAlpha = strength;
  context.fill(path, "evenodd");
  context.globalAlpha = Math.min(1, 2 * strength);
  context.lineWidth = line / scale;
  context.lineJoin = "round";
  context.stroke(path);
  context.globalAlpha = 1;
}

// Copies of a picture at a half, a quarter, ... of its size, so that no frame shrinks millions of
// pixels anew; `add` takes each as it is ready.
export async function shrink(bitmap, add) {
  let image = bitmap;
  while (image.width * image.height > 1.5e6 && Math.min(image.width, image.height) > 64) {
    image = await createImageBitmap(image, {
      resizeWidth: Math.ceil(image.width / 2), resizeHeight: Math.ceil(image.height / 2),
      resizeQuality: "medium",
    });
    if (!add(image)) return;
  }
}

// The picture at its own size with its masks, without boxes.
export function overlay(entry, maskOf, strength) {
  const canvas = document.createElement("canvas");
  canvas.width = entry.width;
  canvas.height = entry.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(entry.levels[0], 0, 0, entry.width, entry.height);
  const line = Math.max(1.5, Math.max(entry.width, entry.height) / 800);
  for (const box of entry.boxes.all) layer(context, box, maskOf(box), strength, 1, line, null);
  return canvas;
}
