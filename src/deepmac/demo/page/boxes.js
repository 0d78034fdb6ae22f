// The boxes of a picture: plain data and geometry, in picture pixels.

export const LEAST = 2; // a box has at least this many pixels a side

export class Boxes {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.all = []; // {number, xyxy, version, mask}
    this.selected = null;
    this.made = 0;
  }

  add(xyxy) {
    const box = { number: ++this.made, xyxy: [0, 0, 0, 0], version: 0, mask: null, score: null };
    this.all.push(box);
    this.selected = box;
    this.set(box, xyxy);
    return box;
  }

  remove(box) {
    const index = this.all.indexOf(box);
    this.all.splice(index, 1);
    if (this.selected === box) this.selected = this.all[Math.min(index, this.all.length - 1)] ?? null;
  }

  // Edges in any order become a box within the picture.
  set(box, [x0, y0, x1, y1]) {
    const [left, right] = span(x0, x1, this.width), [top, bottom] = span(y0, y1, this.height);
    box.xyxy = [left, top, right, bottom];
    box.version += 1;
  }

  moveBy(box, dx, dy) {
    const [x0, y0, x1, y1] = box.xyxy;
    const x = clamp(dx, -x0, this.width - x1), y = clamp(dy, -y0, this.height - y1);
    this.set(box, [x0 + x, y0 + y, x1 + x, y1 + y]);
  }

  // Moves the right and bottom edges.
  growBy(box, dx, dy) {
    const [x0, y0, x1, y1] = box.xyxy;
    const least = (low, high) => Math.max(low + LEAST, high);
    this.set(box, [x0, y0, least(x0, x1 + dx), least(y0, y1 + dy)]);
  }

  step(by) {
    if (!this.all.length) return;
    const index = this.all.indexOf(this.selected);
    const from = index < 0 && by < 0 ? 0 : index;
    this.selected = this.all[(from + by + this.all.length) % this.all.length];
  }

  // The smallest box that holds the point.
  at(x, y) {
    const holding = this.all.filter(({ xyxy: [x0, y0, x1, y1] }) =>
      x >= x0 && x <= x1 && y >= y0 && y <= y1);
    return holding.sort((a, b) => area(a) - area(b))[0] ?? null;
  }
}

// What of a box lies within `reach` of a point: a corner {fixed: [x, y]}, "edge", or null.
export function grip(box, x, y, reach) {
  const [x0, y0, x1, y1] = box.xyxy;
  for (const [cx, cy, fx, fy] of [[x0, y0, x1, y1], [x1, y0, x0, y1], [x0, y1, x1, y0], [x1, y1, x0, y0]])
    if (Math.hypot(cx - x, cy - y) <= reach) return { fixed: [fx, fy] };
  const within = (v, low, high) => v >= low - reach && v <= high + reach;
  const near = (v, edges) => edges.some((edge) => Math.abs(v - edge) <= reach * 0.7);
  const onEdge = (near(x, [x0, x1]) && within(y, y0, y1)) || (near(y, [y0, y1]) && within(x, x0, x1));
  return onEdge ? "edge" : null;
}

function span(a, b, limit) {
  let low = clamp(Math.min(a, b), 0, limit), high = clamp(Math.max(a, b), 0, limit);
  const least = Math.min(LEAST, limit);
  if (high - low < least) {
    low = Math.min(low, limit - least);
    high = low + least;
  }
  return [round(low), round(high)];
}

const area = ({ xyxy: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value) => Math.round(value * 100) / 100;
