// Elements from names, attributes and children. Text only ever becomes text nodes: what a model or a user wrote is
// never read as markup.

const PROPERTIES = new Set(['value', 'checked', 'disabled', 'hidden', 'open', 'textContent', 'className', 'htmlFor',
  'tabIndex', 'selected', 'placeholder', 'type', 'max']);

// make('button', {type: 'button', onclick: run, 'aria-label': 'Run'}, 'Run', child, null, [more])
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) set(element, key, value);
  append(element, children);
  return element;
}

function set(element, key, value) {
  if (value === undefined || value === null) return;
  if (typeof value === 'function') {
    element.addEventListener(key.replace(/^on/, ''), value);
  } else if (PROPERTIES.has(key)) {
    element[key] = value;
  } else {
    element.setAttribute(key, value);
  }
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

const SVG = 'http://www.w3.org/2000/svg';

export function makeSvg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  append(element, children);
  return element;
}

export function replaceChildren(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

// Changes text only where it differs, so that selections and screen readers are left in peace.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Makes the children of `parent` those that `build` returns for `items`, and keeps the elements of keys that stay:
// focus, selections and open menus survive a refresh. `build(item)` makes one, `update(element, item)` refreshes it.
export function syncChildren(parent, items, {key, build, update}) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = before.get(name);
    before.delete(name);
    if (!element) {
      element = build(item);
      element.dataset.key = name;
    }
    update(element, item);
    if (element === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(element, place);
    }
  }
  for (const gone of before.values()) gone.remove();
}
