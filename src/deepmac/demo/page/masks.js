// COCO's compressed run lengths, as pictures to lay over the page's own.

const COLORS = [ // distinct for most kinds of colour vision
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66],
  [0, 114, 178], [213, 94, 0], [204, 121, 167], [148, 103, 189],
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

// The mask as {left, top, canvas}: its fill at half strength is up to the one who draws it, its
// outline is opaque. Only the rectangle that the mask covers is kept.
export function paint({ size: [height], counts: text }, number) {
  const counts = runs(text), spans = [];
  let position = 0, top = height, bottom = -1, left = Infinity, right = -1;
  counts.forEach((count, index) => {
    if (index % 2 && count) {
      for (let start = position; start < position + count;) {
        const column = Math.floor(start / height), end = Math.min(position + count, (column + 1) * height);
        const from = start - column * height, to = end - column * height;
        spans.push([column, from, to]);
        left = Math.min(left, column);
        right = Math.max(right, column);
        top = Math.min(top, from);
        bottom = Math.max(bottom, to - 1);
        start = end;
      }
    }
    position += count;
  });
  if (right < 0) return null;
  const width = right - left + 1, rows = bottom - top + 1;
  const inside = new Uint8Array(width * rows);
  for (const [column, from, to] of spans)
    for (let row = from; row < to; row++) inside[(row - top) * width + column - left] = 1;
  return {
    left, top,
    fill: picture(inside, width, rows, colorOf(number), () => true),
    outline: picture(inside, width, rows, colorOf(number), (x, y, i) =>
      x === 0 || y === 0 || x === width - 1 || y === rows - 1 ||
      !inside[i - 1] || !inside[i + 1] || !inside[i - width] || !inside[i + width]),
  };
}

function picture(inside, width, height, [red, green, blue], keeps) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++)
      if (inside[i] && keeps(x, y, i)) image.data.set([red, green, blue, 255], 4 * i);
  context.putImageData(image, 0, 0);
  return canvas;
}
