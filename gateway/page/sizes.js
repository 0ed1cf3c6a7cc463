// Which sizes a model draws, by shape. Pure: a model's card (GET /v1/models, `genserve`) in, choices out.

const SMALL = 1 / 4; // of the default area
const ENLARGED = [2, 4, 8]; // times the native side
const SHAPE_NAMES = [[1, 1], [5, 4], [4, 5], [4, 3], [3, 4], [3, 2], [2, 3], [16, 9], [9, 16], [2, 1], [1, 2]];
const SHAPES_SHOWN = ["1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16"];

/** The shapes a person chooses from: {name, width, height} of the native size. */
export function shapes(card) {
  const found = new Map();
  for (const size of card.native_sizes) {
    const [width, height] = size.split("x").map(Number);
    const name = nearestName(width / height);
    if (!found.has(name)) found.set(name, { name, width, height });
  }
  const usual = SHAPES_SHOWN.filter((name) => found.has(name)).map((name) => found.get(name));
  return usual.length ? usual : [...found.values()];
}

/** The sizes of one shape, smallest first: {size, kind} where kind is small, native, large or enlarged. */
export function sizes(card, { width, height }) {
  const choices = [{ width, height, kind: "native" }];
  const small = scaled(card, width, height, Math.sqrt(SMALL));
  if (small && small.width < width) choices.unshift({ ...small, kind: "small" });
  const large = scaled(card, width, height, Math.min(2, Math.sqrt(card.pixels_max / (width * height))));
  if (large && large.width > width * 1.2) choices.push({ ...large, kind: "large" });
  for (const times of ENLARGED) {
    const side = Math.max(width, height) * times;
    const drawn = choices.some((each) => each.width >= width * times);
    if (card.enlarged_side_max && side <= card.enlarged_side_max && !drawn) choices.push({ width: width * times, height: height * times, kind: "enlarged" });
  }
  return choices.map(({ width: w, height: h, kind }) => ({ size: `${w}x${h}`, kind }));
}

/** The shape of a model that is nearest to that of a size. */
export function shapeOf(card, size) {
  const [width, height] = size.split("x").map(Number);
  const skew = (shape) => Math.abs(Math.log((shape.width / shape.height) * (height / width)));
  return shapes(card).reduce((best, each) => (skew(each) < skew(best) ? each : best));
}

function scaled(card, width, height, factor) {
  const [w, h] = [width, height].map((side) => Math.floor((side * factor) / card.side_multiple) * card.side_multiple);
  const fits = [w, h].every((side) => side >= card.side_min && side <= card.side_max) && w * h <= card.pixels_max;
  const skew = Math.abs(Math.log((w / h) * (height / width)));
  return fits && skew < 0.1 ? { width: w, height: h } : null;
}

function nearestName(ratio) {
  const off = ([w, h]) => Math.abs(Math.log(ratio / (w / h)));
  const [w, h] = SHAPE_NAMES.reduce((best, each) => (off(each) < off(best) ? each : best));
  return `${w}:${h}`;
}
