// What can be done with a job: to cancel it while it is open, and to queue it again when it is dead.

import {ask} from './api.js';
import {confirm} from './dialogs.js';
import {make} from './dom.js';
import {isOpen} from './job_list.js';

const ACTIONS = {
  cancel: {word: 'Cancel', isFor: isOpen, isDangerous: true, text: 'What it has written stays; it writes no more.'},
  requeue: {word: 'Requeue', isFor: ({state}) => state === 'dead', isDangerous: false,
    text: 'It starts again under the same id and may use all its attempts again.'},
};

async function act(name, job, {onDone, onFailure}) {
  const {word, text, isDangerous} = ACTIONS[name];
  if (!await confirm({title: `${word} job ${job.slice(0, 8)}?`, text, action: word, isDangerous})) return;
  try {
    await ask(`v1/jobs/${job}/${name}`, {method: 'POST'});
    onDone();
  } catch (failure) {
    onFailure(failure);
  }
}

// Buttons of both actions. showActions() shows those that the state of the job allows.
export function actionButtons(job, callbacks) {
  return make('div', {class: 'row-actions'}, Object.entries(ACTIONS).map(([name, {word, isDangerous}]) =>
    make('button', {type: 'button', class: isDangerous ? 'small danger' : 'small', hidden: true, 'data-action': name,
      onclick: () => act(name, job, callbacks)},
      word, make('span', {class: 'off-screen'}, ` job ${job.slice(0, 8)}`))));
}

export function showActions(buttons, job) {
  for (const button of buttons.children) button.hidden = !ACTIONS[button.dataset.action].isFor(job);
}
