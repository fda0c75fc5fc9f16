// Jobs: filters, search and the list, newest first. The filters stand in the address, so that a list can be passed on.

import {make, replaceChildren, setText, syncChildren} from './dom.js';
import {ago, bytes, clock, count, plural} from './format.js';
import {actionButtons, showActions} from './job_actions.js';
import {isConversion, loadJobs, matching, STATES} from './job_list.js';
import {Poller} from './poller.js';
import {cells, table} from './table.js';

const SHOWN = 50;
const FILTERS = ['state', 'model', 'group', 'tenant', 'text'];
const INTERVAL_MS = 3_000;
const LONG_INTERVAL_MS = 15_000;  // where the list takes several requests

export function progressText(job) {
  if (isConversion(job)) return `${bytes(job.progress_done)} of ${bytes(job.progress_total)}`;
  return `${count(job.progress_done)} of ${count(job.progress_total)}`;
}

// Where a client gives no key, one is drawn for it, which tells nobody anything.
function isChosen(key) {
  return key !== '' && !/^[0-9a-f]{32}$/.test(key);
}

export class JobsView {
  title = 'Jobs';
  #controls = {};
  #jobs = [];
  #shown = SHOWN;
  #loaded = make('p', {class: 'muted', role: 'status'}, 'Loading.');
  #problem = make('p', {class: 'problem', role: 'alert'});
  #table = table('List', ['Job', 'Model', 'State', 'Progress', 'Attempts', 'Accepted', 'Remark', 'Actions']);
  #more = make('button', {type: 'button', hidden: true, onclick: () => this.#showMore()}, 'Show more');
  #poller = new Poller({
    intervalMs: INTERVAL_MS,
    request: (signal) => loadJobs(this.#serverFilter(), signal),
    onAnswer: (answer) => this.#onJobs(answer),
    onState: ({kind, message}) => kind === 'down' && setText(this.#problem, `The list is not up to date: ${message}`),
  });

  constructor() {
    this.element = make('div', {class: 'jobs'}, this.#form(), this.#problem, this.#loaded, this.#table.element,
      make('div', {class: 'actions'}, this.#more));
  }

  onShow(parameters) {
    for (const name of FILTERS) this.#controls[name].value = parameters.get(name) ?? '';
    this.#poller.start();
  }
  onHide() {
    this.#poller.stop();
  }

  #form() {
    const field = (name, label, control) => {
      this.#controls[name] = control;
      control.id = `filter-${name}`;
      return make('div', {class: 'field'}, make('label', {for: control.id}, label), control);
    };
    const words = (placeholder) =>
      make('input', {type: 'search', spellcheck: 'false', autocomplete: 'off', placeholder});
    return make('form', {class: 'filters', role: 'search', 'aria-label': 'Jobs',
      oninput: (event) => this.#changed(event),
      onsubmit: (event) => {
        event.preventDefault();
        this.#open();
      }},
    field('text', 'Search', words('id, key, group, message')),
    field('state', 'State', make('select', {}, make('option', {value: ''}, 'all'),
      STATES.map((state) => make('option', {value: state}, state === 'dead' ? 'dead (dead letters)' : state)))),
    field('model', 'Model', words('')), field('group', 'Group', words('')), field('tenant', 'Tenant', words('')));
  }

  #filters() {
    return Object.fromEntries(FILTERS.map((name) => [name, this.#controls[name].value.trim()]));
  }
  #serverFilter() {
    const {text, ...filter} = this.#filters();
    return filter;
  }

  #changed({target}) {
    const given = Object.entries(this.#filters()).filter(([, value]) => value !== '');
    history.replaceState(null, '', given.length > 0 ? `#/jobs?${new URLSearchParams(given)}` : '#/jobs');
    this.#shown = SHOWN;
    if (target === this.#controls.text) this.#show();
    else this.#poller.now();
  }

  // A whole id leads to its job, wherever it is in the list.
  #open() {
    const {text} = this.#filters();
    if (/^[0-9a-f]{32}$/.test(text)) location.hash = `#/jobs/${text}`;
  }

  #onJobs({jobs, isCut, unanswered}) {
    this.#poller.intervalMs = jobs.length > 1000 ? LONG_INTERVAL_MS : INTERVAL_MS;
    this.#jobs = jobs;
    const missing = [
      isCut && `There are more than ${count(jobs.length)} jobs; the oldest are missing. Narrow the filters.`,
      ...unanswered.map(({endpoint, message}) => `The jobs of ${endpoint} are missing: ${message}.`)];
    setText(this.#problem, missing.filter(Boolean).join(' '));
    this.#show();
  }

  #showMore() {
    this.#shown += SHOWN;
    this.#show();
  }

  #show() {
    const found = matching(this.#jobs, this.#controls.text.value);
    setText(this.#loaded, `${plural(found.length, 'job')}, newest first, read at ${clock(Date.now())}.`);
    this.#table.setEmpty(found.length > 0 ? ''
      : 'No job matches. Results are kept for their time to live, one hour by default.');
    this.#more.hidden = found.length <= this.#shown;
    syncChildren(this.#table.body, found.slice(0, this.#shown), {
      key: ({job}) => job,
      build: ({job, key}) => this.#row(job, key),
      update: (row, job) => {
        cells(row.cellsToSet, [isConversion(job) ? 'conversion' : job.model, {badge: job.state}, progressText(job),
          String(job.attempts), ago(job.accepted_ms),
          [job.group && `group ${job.group}`, job.message].filter(Boolean).join(': ')]);
        showActions(row.lastElementChild.firstElementChild, job);
      },
    });
  }

  #row(job, key) {
    const row = this.#table.row();
    const [name, ...others] = row.children;
    replaceChildren(name, make('a', {href: `#/jobs/${job}`}, make('code', {}, job.slice(0, 8))),
      isChosen(key) && make('small', {class: 'key'}, key));
    replaceChildren(row.lastElementChild, actionButtons(job, {
      onDone: () => this.#poller.now(),
      onFailure: ({message}) => setText(this.#problem, message),
    }));
    row.cellsToSet = {children: others};
    return row;
  }
}
