// The boxes of a picture and their history: plain records that are replaced, never changed.

export const LEAST = 2; // a box has at least this many pixels a side
const STEPS = 200; // that can be undone

// A box: {number, xyxy, label, id, given, points}: pixels; a class name or ""; the id and the mask
// that it has in a file, the mask as long as the box is not touched; clicks that correct its mask,
// [x, y, 1 on the thing or 0 beside it].
export class Boxes {
  constructor(width, height, kept) {
    this.width = width;
    this.height = height;
    this.all = kept?.all ?? [];
    this.number = kept?.number ?? null; // of the selected one
    this.past = kept?.past ?? [];
    this.future = kept?.future ?? [];
    this.mark = { all: this.all, number: this.number }; // what a step is counted from
    this.last = { key: null, time: 0 };
  }

  get selected() { return this.get(this.number); }

  set selected(box) { this.number = box?.number ?? null; }

  get(number) { return this.all.find((box) => box.number === number) ?? null; }

  kept() {
    return { all: this.all, number: this.number, past: this.past, future: this.future };
  }

  // ---- history ----

  // Ends a step. Steps of the same key within a second are one: an arrow that is held down.
  commit(key = null) {
    if (this.all === this.mark.all) {
      this.mark.number = this.number;
      return false;
    }
    const now = Date.now();
    if (!key || key !== this.last.key || now - this.last.time > 1000) {
      this.past = [...this.past, this.mark].slice(-STEPS);
      this.future = [];
    }
    this.last = { key, time: now };
    this.mark = { all: this.all, number: this.number };
    return true;
  }

  // Forgets what was done since the last step.
  revert() { ({ all: this.all, number: this.number } = this.mark); }

  undo() { return this.#travel("past", "future"); }

  redo() { return this.#travel("future", "past"); }

  #travel(from, to) {
    if (!this[from].length) return false;
    this[to] = [...this[to], this.mark];
    this.mark = { ...this[from].at(-1) };
    this[from] = this[from].slice(0, -1);
    this.last = { key: null, time: 0 };
    this.revert();
    return true;
  }

  // ---- changes ----

  add(xyxy, fields = {}) {
    const number = 1 + Math.max(0, ...this.all.map((box) => box.number));
    const box = { number, label: "", id: null, given: null, ...fields, xyxy: this.inside(xyxy) };
    this.all = [...this.all, box];
    this.selected = box;
    return box;
  }

  remove(box) {
    const index = this.all.findIndex(({ number }) => number === box.number);
    this.all = this.all.filter(({ number }) => number !== box.number);
    if (this.number === box.number) this.selected = this.all[Math.min(index, this.all.length - 1)];
  }

  clear() {
    this.all = [];
    this.number = null;
  }

  change(box, fields) {
    const now = { ...box, ...fields };
    this.all = this.all.map((one) => (one.number === box.number ? now : one));
    return now;
  }

  // Edges in any order become a box within the picture.
  set(box, xyxy) {
    const inside = this.inside(xyxy);
    if (inside.every((v, i) => v === box.xyxy[i])) return box;
    const points = (box.points ?? []).filter(([x, y]) => holds(inside, x, y));
    return this.change(box, { xyxy: inside, given: null, points });
  }

  // A click at a place; one that lies there already (`reach` around it) says the other thing, and
  // goes when it has said both. What became of it, in a word.
  point(box, x, y, label, reach) {
    const points = box.points ?? [], at = points.findIndex((one) => Math.hypot(one[0] - x, one[1] - y) <= reach);
    if (at < 0) {
      this.change(box, { points: [...points, [x, y, label]], given: null });
      return label ? "on it" : "beside it";
    }
    const [px, py, said] = points[at], turned = said ? [[px, py, 0]] : [];
    this.change(box, { points: [...points.slice(0, at), ...turned, ...points.slice(at + 1)], given: null });
    return said ? "beside it" : "removed";
  }

  inside([x0, y0, x1, y1]) {
    const [left, right] = span(x0, x1, this.width), [top, bottom] = span(y0, y1, this.height);
    return [left, top, right, bottom];
  }

  moveBy(box, dx, dy) {
    const [x0, y0, x1, y1] = box.xyxy;
    const x = clamp(dx, -x0, this.width - x1), y = clamp(dy, -y0, this.height - y1);
    return this.set(box, [x0 + x, y0 + y, x1 + x, y1 + y]);
  }

  // Moves the right and bottom edges.
  growBy(box, dx, dy) {
    const [x0, y0, x1, y1] = box.xyxy;
    const least = (low, high) => Math.max(low + LEAST, high);
    return this.set(box, [x0, y0, least(x0, x1 + dx), least(y0, y1 + dy)]);
  }

  step(by) {
    if (!this.all.length) return;
    const index = this.all.findIndex(({ number }) => number === this.number);
    const from = index < 0 && by < 0 ? 0 : index;
    this.selected = this.all[(from + by + this.all.length) % this.all.length];
  }

  // A third of a window (xyxy) in its middle, or beside it: never where a box already is.
  free([x0, y0, x1, y1]) {
    const width = (x1 - x0) / 3, height = (y1 - y0) / 3, near = Math.min(width, height) / 16;
    for (let ring = 0; ring < 60; ring++)
      for (const [right, down] of ring ? AROUND : [[0, 0]]) {
        const left = x0 + width * (1 + (ring * right) / 7), top = y0 + height * (1 + (ring * down) / 7);
        const box = this.inside([left, top, left + width, top + height]);
        const taken = this.all.some(({ xyxy }) => xyxy.every((v, i) => Math.abs(v - box[i]) < near));
        if (!taken && box[2] - box[0] > width / 2 && box[3] - box[1] > height / 2) return box;
      }
    const at = this.all.length % 97; // a full picture: smaller and smaller ones
    return this.inside([x0 + at, y0 + at, x0 + at + width / 2, y0 + at + height / 2]);
  }

  // Those around a place, the smallest first.
  holding(x, y) {
    return this.all.filter(({ xyxy }) => holds(xyxy, x, y)).sort((a, b) => area(a) - area(b));
  }

  // The smallest box that holds the point; of several the one after the selected.
  at(x, y) {
    const holding = this.holding(x, y);
    const index = holding.findIndex(({ number }) => number === this.number);
    return holding[(index + 1) % holding.length] ?? null;
  }
}

const AROUND = [[1, 1], [-1, -1], [1, -1], [-1, 1], [1, 0], [0, 1], [-1, 0], [0, -1]];

// Which edges of a box lie within `reach` of a point: [left, top, right, bottom] as booleans, or
// null. Two are a corner.
export function grip(box, x, y, reach) {
  const [x0, y0, x1, y1] = box.xyxy;
  if (x < x0 - reach || x > x1 + reach || y < y0 - reach || y > y1 + reach) return null;
  const near = (v, edge, side) => Math.abs(v - edge) <= Math.min(reach, Math.max(reach / 2, side / 4));
  const held = [near(x, x0, x1 - x0), near(y, y0, y1 - y0), near(x, x1, x1 - x0), near(y, y1, y1 - y0)];
  if (held[0] && held[2]) held[x < (x0 + x1) / 2 ? 2 : 0] = false;
  if (held[1] && held[3]) held[y < (y0 + y1) / 2 ? 3 : 1] = false;
  return held.some(Boolean) ? held : null;
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

export const holds = ([x0, y0, x1, y1], x, y) => x >= x0 && x <= x1 && y >= y0 && y <= y1;
