// COCO's compressed run lengths as outlines, which are sharp at every zoom.

const COLORS = [ // the first eight distinct for most kinds of colour vision
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66],
  [61, 133, 222], [213, 94, 0], [204, 121, 167], [148, 103, 189],
  [255, 187, 120], [152, 223, 138], [255, 152, 150], [23, 190, 207],
  [197, 176, 213], [188, 189, 34], [227, 119, 194], [140, 200, 160],
  [158, 218, 229], [214, 39, 40], [255, 215, 90], [110, 110, 230],
  [120, 230, 60], [250, 110, 60], [60, 220, 180], [200, 80, 220],
];

export const colorOf = (number) => COLORS[(number - 1) % COLORS.length];

// Run lengths, zeros first, down one column after the other.
export function runs(text) {
  const counts = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      more = (bits & 32) !== 0;
      shift += 5;
      if (!more && bits & 16) value |= -1 << shift;
    }
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

// Pieces of columns [column, from, to) that a mask covers.
function spansOf({ size: [height], counts }) {
  const spans = [];
  let position = 0;
  runs(counts).forEach((count, index) => {
    for (let start = position; index % 2 && start < position + count;) {
      const column = Math.floor(start / height), end = Math.min(position + count, (column + 1) * height);
      spans.push([column, start - column * height, end - column * height]);
      start = end;
    }
    position += count;
  });
  return spans;
}

// {frame: [x0, y0, x1, y1], rings}: each ring the middles x, y, x, y, ... of the pixel edges around
// a part or a hole, the object on the right; null for an empty mask.
export function trace(segmentation) {
  const spans = spansOf(segmentation);
  if (!spans.length) return null;
  let top = Infinity, bottom = 0;
  for (const [, from, to] of spans) {
    top = Math.min(top, from);
    bottom = Math.max(bottom, to);
  }
  const left = spans[0][0], right = spans.at(-1)[0] + 1, rows = bottom - top + 2;
  const cells = new Uint8Array((right - left + 2) * rows); // with a frame of nothing
  for (const [column, from, to] of spans)
    cells.fill(1, (column - left + 1) * rows + from - top + 1, (column - left + 1) * rows + to - top + 1);
  const rings = [];
  for (const [column, from] of spans) {
    const x = column - left + 1, y = from - top + 1;
    if (cells[x * rows + y] === 1 && !cells[x * rows + y - 1])
      rings.push(follow(cells, rows, x, y, left - 1, top - 1));
  }
  return { frame: [left, top, right, bottom], rings, paths: new Map() };
}

const EAST = 0, SOUTH = 1, WEST = 2;
const DX = [1, 0, -1, 0], DY = [0, 1, 0, -1];

// Around one part from the upper left corner of a cell; upper edges that were walked are marked.
function follow(cells, rows, startX, startY, left, top) {
  const points = [];
  let x = startX, y = startY, heading = EAST;
  do {
    if (heading === EAST) cells[x * rows + y] = 3;
    points.push(x + left + DX[heading] / 2, y + top + DY[heading] / 2);
    x += DX[heading];
    y += DY[heading];
    const nearRight = cells[(heading === EAST || heading === 3 ? x : x - 1) * rows +
      (heading === EAST || heading === SOUTH ? y : y - 1)];
    const nearLeft = cells[(heading === EAST || heading === SOUTH ? x : x - 1) * rows +
      (heading === SOUTH || heading === WEST ? y : y - 1)];
    if (!nearRight) heading = (heading + 1) % 4;
    else if (nearLeft) heading = (heading + 3) % 4;
  } while (x !== startX || y !== startY || heading !== EAST);
  return points;
}

// As a path in picture pixels, with no more corners than `scale` screen pixels a picture pixel show.
export function pathOf(shape, scale) {
  const level = Math.max(0, Math.round(Math.log2(1 / scale)));
  let path = shape.paths.get(level);
  if (!path) {
    path = new Path2D();
    for (const ring of shape.rings) {
      const kept = simplify(ring, 0.3 * 2 ** level);
      kept.forEach((index, at) => path[at ? "lineTo" : "moveTo"](ring[2 * index], ring[2 * index + 1]));
      path.closePath();
    }
    shape.paths.set(level, path);
  }
  return path;
}

// Douglas and Peucker: indices of the points that stay.
function simplify(ring, tolerance) {
  const count = ring.length / 2;
  if (count < 5) return [...Array(count).keys()];
  let far = 0, furthest = -1;
  for (let i = 1; i < count; i++) {
    const distance = (ring[2 * i] - ring[0]) ** 2 + (ring[2 * i + 1] - ring[1]) ** 2;
    if (distance > furthest) [far, furthest] = [i, distance];
  }
  const keep = new Uint8Array(count + 1), stack = [[0, far], [far, count]];
  keep[0] = keep[far] = 1;
  while (stack.length) {
    const [start, end] = stack.pop();
    const ax = ring[2 * start], ay = ring[2 * start + 1];
    const bx = ring[(2 * end) % ring.length], by = ring[(2 * end + 1) % ring.length];
    const length = Math.hypot(bx - ax, by - ay) || 1;
    let worst = -1, most = tolerance;
    for (let i = start + 1; i < end; i++) {
      const off = Math.abs((bx - ax) * (ring[2 * i + 1] - ay) - (by - ay) * (ring[2 * i] - ax)) / length;
      if (off > most) [worst, most] = [i, off];
    }
    if (worst < 0) continue;
    keep[worst] = 1;
    stack.push([start, worst], [worst, end]);
  }
  const kept = [];
  for (let i = 0; i < count; i++) if (keep[i]) kept.push(i);
  return kept;
}
