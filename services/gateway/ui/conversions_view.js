// Conversions of checkpoints: how far each one is.

import {make, replaceChildren, setText, syncChildren} from './dom.js';
import {ago, bytes, duration} from './format.js';
import {actionButtons, showActions} from './job_actions.js';
import {isConversion, isOpen, loadJobs} from './job_list.js';
import {Poller} from './poller.js';
import {badge, setBadge} from './table.js';

const RATE_WINDOW_MS = 30_000;

// Bytes a second of each job, from what was seen of it in the last half minute.
export class Rates {
  #seen = new Map();

  add(job, done, now) {
    const points = (this.#seen.get(job) ?? []).filter(({at}) => at >= now - RATE_WINDOW_MS);
    points.push({at: now, done});
    this.#seen.set(job, points);
    const [first] = points;
    return now > first.at ? (done - first.done) * 1000 / (now - first.at) : 0;
  }
}

function progressLine(job, rate) {
  const {progress_done: done, progress_total: total} = job;
  if (total <= 0 && !isOpen(job)) return '';
  if (total <= 0) return job.state === 'queued' ? 'Waiting for a converter.' : 'Its size is not known yet.';
  const share = `${bytes(done)} of ${bytes(total)} (${Math.floor(done * 100 / total)}%)`;
  if (!isOpen(job) || rate <= 0) return share;
  return `${share}, ${bytes(Math.round(rate))}/s, about ${duration((total - done) * 1000 / rate)} to go`;
}

export class ConversionsView {
  title = 'Conversions';
  #rates = new Rates();
  #list = make('ul', {class: 'conversions'});
  #empty = make('p', {class: 'placeholder'}, 'Loading.');
  #problem = make('p', {class: 'problem', role: 'alert'});
  #poller = new Poller({
    intervalMs: 2_000,
    request: (signal) => loadJobs({}, signal),
    onAnswer: (answer) => this.#onJobs(answer),
    onState: ({kind, message}) => kind === 'down' && setText(this.#problem, `The list is not up to date: ${message}`),
  });

  constructor() {
    this.element = make('div', {}, this.#problem, this.#empty, this.#list);
  }

  onShow() {
    this.#poller.start();
  }
  onHide() {
    this.#poller.stop();
  }

  #onJobs({jobs, isCut, unanswered}) {
    const missing = [isCut && 'There are too many jobs to see the oldest conversions.',
      ...unanswered.map(({endpoint, message}) => `Those of ${endpoint} are missing: ${message}.`)];
    setText(this.#problem, missing.filter(Boolean).join(' '));
    const conversions = jobs.filter(isConversion);
    this.#empty.hidden = conversions.length > 0;
    if (conversions.length === 0) {
      replaceChildren(this.#empty, 'There is none. ', make('code', {}, 'optserve convert SOURCE TARGET --remote'),
        ' asks a converter for one.');
    }
    syncChildren(this.#list, conversions, {
      key: ({job}) => job,
      build: (job) => this.#card(job),
      update: (card, job) => this.#update(card, job),
    });
  }

  #card({job}) {
    const card = make('li', {class: 'card'});
    card.parts = {
      state: badge('–'),
      bar: make('progress', {max: 1, value: 0, 'aria-label': `Progress of conversion ${job.slice(0, 8)}`}),
      progress: make('p', {class: 'figures'}),
      message: make('p', {class: 'message'}),
      accepted: make('span', {class: 'muted'}),
      actions: actionButtons(job, {onDone: () => this.#poller.now(),
        onFailure: ({message}) => setText(this.#problem, message)}),
    };
    const {state, bar, progress, message, accepted, actions} = card.parts;
    replaceChildren(card, make('div', {class: 'section-head'},
      make('p', {}, state, ' ', make('a', {href: `#/jobs/${job}`}, make('code', {}, job.slice(0, 8))),
      ' ', accepted), actions),
    bar, progress, message);
    return card;
  }

  #update({parts}, job) {
    const {progress_done: done, progress_total: total} = job;
    setBadge(parts.state, job.state);
    parts.bar.value = total > 0 ? done / total : 0;
    setText(parts.progress, progressLine(job, this.#rates.add(job.job, done, Date.now())));
    setText(parts.message, job.message);
    setText(parts.accepted, [job.key, job.tenant && `tenant ${job.tenant}`,
      `accepted ${ago(job.accepted_ms)}`].filter(Boolean).join(', '));
    showActions(parts.actions, job);
  }
}
