// A small plot of the last minutes, drawn as SVG from a history.

import {make, makeSvg, setText} from './dom.js';
import {decimal} from './format.js';
import {linePath, niceMax} from './history.js';

const WIDTH = 300;
const HEIGHT = 64;

export class Plot {
  #line = makeSvg('path', {class: 'plot-line'});
  #top = make('span', {class: 'plot-top'});
  #value = make('span', {class: 'plot-value'}, '–');
  #from = make('span');
  #svg = makeSvg('svg', {viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`, preserveAspectRatio: 'none', role: 'img'},
    makeSvg('path', {class: 'plot-grid', d: `M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}`}),
    this.#line);

  constructor(title, name) {
    this.title = title;
    this.name = name;
    this.element = make('figure', {class: 'plot'},
      make('figcaption', {}, make('span', {}, title), this.#value),
      make('div', {class: 'plot-box'}, this.#svg, this.#top),
      make('div', {class: 'plot-axis', 'aria-hidden': 'true'}, this.#from, make('span', {}, 'now')));
  }

  draw(history, now) {
    const points = history.series(this.name);
    if (points.length === 0) return;
    const highest = Math.max(...points.map(({value}) => value));
    const top = niceMax(highest);
    const windowMs = history.windowMs(now);
    setText(this.#from, `${windowMs / 60_000} min ago`);
    this.#line.setAttribute('d', linePath(points, {now, width: WIDTH, height: HEIGHT, top, windowMs}));
    setText(this.#top, decimal(top));
    setText(this.#value, decimal(points.at(-1).value));
    this.#svg.setAttribute('aria-label',
      `${this.title} in the last minutes: now ${decimal(points.at(-1).value)}, at most ${decimal(highest)}`);
  }
}
