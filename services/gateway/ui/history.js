// What the page has polled in the last minutes, and its shape as a plot. Pure.

export const WINDOW_MS = 10 * 60_000;

// Samples {at, values: {name: number}} of the last WINDOW_MS.
export class History {
  samples = [];

  add(at, values) {
    this.samples.push({at, values});
    while (this.samples[0].at < at - WINDOW_MS) this.samples.shift();
  }

  // How far back a plot reaches: as far as there is something to see, in steps.
  windowMs(now) {
    const age = now - (this.samples[0]?.at ?? now);
    return [60_000, 2 * 60_000, 5 * 60_000].find((window) => window >= age) ?? WINDOW_MS;
  }

  // [{at, value}]
  series(name) {
    return this.samples.map(({at, values}) => ({at, value: values[name] ?? 0}));
  }
}

// The top of the axis: 1, 2 or 5 times a power of ten, at least 1.
export function niceMax(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((top) => top >= value);
}

// The path of a line in a box of width × height, ending at `now` on the right. Where nothing was polled for longer than
// `gapMs` the line is broken, since nobody knows what was there.
export function linePath(points, {now, width, height, top, windowMs, gapMs = 10_000}) {
  let path = '';
  let last = -Infinity;
  for (const {at, value} of points) {
    const x = width * (1 - (now - at) / windowMs);
    const y = height * (1 - Math.min(value, top) / top);
    path += `${at - last > gapMs ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
    last = at;
  }
  return path;
}
