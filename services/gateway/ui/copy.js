// Buttons that copy a text.

import {make, setText} from './dom.js';

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);  // without TLS browsers have no clipboard
  }
}

function copySelected(text) {
  const field = make('textarea', {class: 'off-screen', 'aria-hidden': 'true', value: text});
  document.body.append(field);
  field.select();
  const isDone = document.execCommand('copy');
  field.remove();
  return isDone;
}

// `textOf()` gives what is copied. `label` tells screen readers what that is.
export function copyButton(textOf, label) {
  const word = make('span', {}, 'Copy');
  let timer;
  return make('button', {
    type: 'button',
    class: 'small copy',
    onclick: async () => {
      setText(word, await copy(textOf()) ? 'Copied' : 'Failed');
      clearTimeout(timer);
      timer = setTimeout(() => setText(word, 'Copy'), 1500);
    },
  }, word, make('span', {class: 'off-screen'}, ` ${label}`));
}
