// Questions in a modal dialog of the browser: it keeps the focus, and Escape is no.

import {apiKey, setApiKey} from './api.js';
import {make} from './dom.js';

let number = 0;

// Resolves to the value of the button that was pressed, or '' where the question was left.
function ask({title, content, buttons}) {
  const id = `dialog-${++number}`;
  const before = document.activeElement;
  return new Promise((resolve) => {
    const dialog = make('dialog', {'aria-labelledby': id},
      make('form', {method: 'dialog'},
        make('h2', {id}, title), content,
        make('div', {class: 'dialog-buttons'}, buttons.map(({text, value, kind, isFirst}) =>
          make('button', {value, class: kind ?? '', autofocus: isFirst ? '' : null}, text)))));
    dialog.addEventListener('close', () => {
      resolve(dialog.returnValue);
      dialog.remove();
      before?.focus?.();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export async function confirm({title, text, action, isDangerous = false}) {
  const answer = await ask({
    title,
    content: make('p', {}, text),
    buttons: [{text: action, value: 'yes', kind: isDangerous ? 'danger' : 'primary'},
      {text: 'Keep as it is', value: '', isFirst: true}],
  });
  return answer === 'yes';
}

// Whether there is another key than before.
export async function askForKey(reason = '') {
  const field = make('input', {id: 'api-key', type: 'password', autocomplete: 'off', spellcheck: 'false',
    autofocus: '', value: apiKey()});
  const answer = await ask({
    title: 'API key',
    content: [
      reason && make('p', {class: 'problem'}, reason),
      make('p', {}, 'The gateway asks for a key where it was started with --keys. It is kept in this tab until ' +
        'the tab is closed, and is sent to this gateway alone.'),
      make('label', {for: 'api-key'}, 'Key'), field],
    // The first one is what the Enter key in the field presses.
    buttons: [{text: 'Use', value: 'use', kind: 'primary'}, {text: 'Forget', value: 'forget'},
      {text: 'Cancel', value: ''}],
  });
  if (answer === 'forget') setApiKey('');
  if (answer === 'use') setApiKey(field.value.trim());
  return answer !== '';
}
