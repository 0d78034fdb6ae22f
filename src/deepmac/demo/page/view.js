// Drawing: the picture, its masks and boxes, on any canvas.

import { colorOf } from "./masks.js";

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.scale = 1; // screen pixels per picture pixel
  }

  // Fits the picture into the room there is and keeps its shape.
  fit(picture, room, tallest) {
    this.scale = Math.min(room / picture.width, tallest / picture.height, 8);
    const density = window.devicePixelRatio || 1;
    const width = Math.max(1, picture.width * this.scale), height = Math.max(1, picture.height * this.scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * density);
    this.canvas.height = Math.round(height * density);
  }

  // Picture pixels of a pointer event.
  position(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [(event.clientX - frame.left) / this.scale, (event.clientY - frame.top) / this.scale];
  }

  draw(picture, boxes, strength) {
    const context = this.canvas.getContext("2d");
    const shown = this.scale * (window.devicePixelRatio || 1);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(shown, 0, 0, shown, 0, 0);
    layers(context, picture, boxes, strength);
    for (const box of boxes.all) if (box !== boxes.selected) frame(context, box, 1.5 / this.scale, false);
    if (boxes.selected) frame(context, boxes.selected, 2.5 / this.scale, true);
  }
}

// The picture at its own size with its masks, without boxes.
export function overlay(picture, boxes, strength) {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  layers(canvas.getContext("2d"), picture, boxes, strength);
  return canvas;
}

function layers(context, picture, boxes, strength) {
  context.drawImage(picture.bitmap, 0, 0, picture.width, picture.height);
  for (const { mask } of boxes.all) {
    if (!mask) continue;
    context.globalAlpha = strength;
    context.drawImage(mask.fill, mask.left, mask.top);
    context.globalAlpha = Math.min(1, 2 * strength);
    context.drawImage(mask.outline, mask.left, mask.top);
  }
  context.globalAlpha = 1;
}

function frame(context, { xyxy: [x0, y0, x1, y1], number }, line, selected) {
  const color = `rgb(${colorOf(number).join()})`;
  for (const [style, width] of [["#000a", 2 * line], [color, line]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  if (!selected) return;
  const side = 4 * line;
  for (const x of [x0, x1]) for (const y of [y0, y1]) {
    context.fillStyle = "#fff";
    context.fillRect(x - side / 2, y - side / 2, side, side);
    context.strokeStyle = "#000";
    context.lineWidth = line / 2;
    context.strokeRect(x - side / 2, y - side / 2, side, side);
  }
}
