// Tables that become lists of cards on narrow screens, and what stands in their cells.

import {make, replaceChildren, setText} from './dom.js';

let number = 0;

// {element, body, row(), setEmpty(text)}: a section with a heading and a table whose rows the caller keeps. row() makes
// one with empty cells; setEmpty() says why there are none.
export function table(title, labels) {
  const id = `table-${++number}`;
  const body = make('tbody');
  const empty = make('p', {class: 'placeholder', hidden: true});
  const grid = make('table', {'aria-labelledby': id},
    make('thead', {}, make('tr', {}, labels.map((label) => make('th', {scope: 'col'}, label)))), body);
  return {
    element: make('section', {}, make('h2', {id}, title), make('div', {class: 'table-box'}, grid), empty),
    body,
    row: () => make('tr', {}, labels.map((label) => make('td', {'data-label': label}))),
    setEmpty: (text) => {
      setText(empty, text);
      empty.hidden = text === '';
      grid.hidden = text !== '';
    },
  };
}

const TONES = {
  open: 'good', ready: 'good', succeeded: 'good', running: 'busy', queued: 'plain', paused: 'warn', draining: 'warn',
  mixed: 'warn', silent: 'bad', failed: 'bad', dead: 'bad', expired: 'warn', cancelled: 'plain', 'no answer': 'bad',
};

export function badge(word) {
  const element = make('span', {class: 'badge'});
  setBadge(element, word);
  return element;
}

export function setBadge(element, word) {
  setText(element, word);
  element.className = `badge ${TONES[word] ?? 'plain'}`;
}

function loadText({running, slots}) {
  const ahead = Math.max(0, running - slots);
  return `${Math.min(running, slots)} of ${slots}${ahead > 0 ? `, ${ahead} ahead` : ''}`;
}

// Of a service: how many of the jobs that it can compute at a time it has.
function loadBar() {
  return make('div', {class: 'load'}, make('progress', {max: 1, value: 0, 'aria-label': 'Load'}), make('span'));
}

function setCell(cell, value) {
  if (value?.badge !== undefined) {
    if (cell.firstElementChild === null) cell.append(badge(value.badge));
    else setBadge(cell.firstElementChild, value.badge);
  } else if (value?.load !== undefined) {
    if (cell.firstElementChild?.className !== 'load') replaceChildren(cell, loadBar());
    const [bar, words] = cell.firstElementChild.children;
    bar.value = Math.min(1, value.load.running / value.load.slots);
    setText(words, loadText(value.load));
  } else {
    setText(cell, value);
  }
}

// Sets the first cells of a row: texts, {badge: word} or {load: service}.
export function cells(row, values) {
  values.forEach((value, index) => setCell(row.children[index], value));
}
