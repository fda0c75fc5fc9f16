// The queue: totals, the last minutes as plots, models, services and schedulers, and how operators steer them.

import {post} from './api.js';
import {confirm} from './dialogs.js';
import {make, replaceChildren, setText, syncChildren} from './dom.js';
import {count, decimal, duration, plural} from './format.js';
import {Plot} from './plot.js';
import {serviceState} from './status.js';
import {badge, cells, setBadge, table} from './table.js';

const EFFECTS = {
  pause: 'Jobs are still accepted, and none of them starts until the queue is resumed. Running jobs go on.',
  drain: 'New jobs are refused. Those that are there are finished.',
  resume: 'Jobs are accepted and start again.',
};
const SERVICE_EFFECTS = {
  pause: 'It gets no new jobs until it is resumed. Those that it has go on.',
  resume: 'It gets new jobs again.',
};

const TOTALS = [['queued', 'Waiting'], ['running', 'Running'], ['tokens', 'Tokens/s'], ['eta', 'Expected wait'],
  ['finished', 'Succeeded'], ['failed', 'Failed or dead'], ['cancelled', 'Cancelled'], ['expired', 'Expired']];

const ACTION_OF_MODE = {open: 'resume', paused: 'pause', draining: 'drain'};

function setPossible(place, mode) {
  for (const button of place.children) button.disabled = button.dataset.action === ACTION_OF_MODE[mode];
}

function serviceMode({paused}) {
  return paused ? 'paused' : 'open';
}

function capitalized(text) {
  return text[0].toUpperCase() + text.slice(1);
}

export class QueueView {
  title = 'Queue';
  #totals = Object.fromEntries(TOTALS.map(([name]) => [name, make('dd', {}, '–')]));
  #plots = [new Plot('Waiting jobs', 'queued'), new Plot('Running jobs', 'running'), new Plot('Tokens/s', 'tokens')];
  #mode = badge('unknown');
  #queueActions = make('div', {class: 'row-actions'});
  #notices = make('ul', {class: 'notices', hidden: true});
  #models = table('Models', ['Model', 'State', 'Waiting', 'Running', 'Tokens/s', 'Expected wait', 'Actions']);
  #services = table('Workers and other services', ['Name', 'Kind', 'State', 'Load', 'Models', 'Last heard', 'Actions']);
  #schedulers = table('Schedulers', ['Address', 'State', 'Waiting', 'Running', 'Term', 'Journal']);
  #problem = make('p', {class: 'problem', role: 'alert'});

  #loading = make('p', {class: 'placeholder'}, 'Loading.');

  // `refresh` asks for the status at once.
  constructor({refresh}) {
    this.refresh = refresh;
    this.element = make('div', {class: 'queue loading'},
      this.#loading,
      make('div', {class: 'section-head'}, make('p', {}, 'The whole queue is ', this.#mode, '.'), this.#queueActions),
      this.#problem, this.#notices,
      make('dl', {class: 'totals'},
        TOTALS.map(([name, label]) => make('div', {}, make('dt', {}, label), this.#totals[name]))),
      make('div', {class: 'plots'}, this.#plots.map(({element}) => element)),
      this.#models.element, this.#services.element, this.#schedulers.element);
    this.#fillActions(this.#queueActions, 'the whole queue', {}, EFFECTS);
  }

  onStatus(summary, history) {
    const waits = summary.models.map(({eta_ms: eta}) => eta);
    const values = {
      ...Object.fromEntries(Object.entries(summary.totals).map(([name, value]) => [name, count(value)])),
      tokens: decimal(summary.tokensPerSecond),
      eta: waits.length === 0 || waits.some((eta) => eta < 0) ? 'not known' : duration(Math.max(...waits)),
    };
    for (const [name, element] of Object.entries(this.#totals)) setText(element, values[name]);
    for (const plot of this.#plots) plot.draw(history, Date.now());
    this.element.classList.remove('loading');
    this.#loading.hidden = true;
    setBadge(this.#mode, summary.mode);
    setPossible(this.#queueActions, summary.mode);
    this.#notices.hidden = summary.notices.length === 0;
    const shown = [...this.#notices.children].map(({textContent}) => textContent);
    if (shown.join('\n') !== summary.notices.join('\n')) {
      replaceChildren(this.#notices, summary.notices.map((text) => make('li', {}, text)));
    }
    this.#showModels(summary.models);
    this.#showServices(summary.services);
    this.#showSchedulers([...summary.schedulers, ...summary.problems]);
  }

  #showModels(models) {
    this.#models.setEmpty(models.length === 0 ? 'No model has been asked for or served yet.' : '');
    syncChildren(this.#models.body, models, {
      key: ({name}) => name,
      build: ({name}) => this.#row(this.#models, `model ${name}`, {model: name}, EFFECTS),
      update: (row, model) => this.#update(row, [model.name,
        {badge: model.mode}, count(model.queued), count(model.running),
        model.tokens_per_second > 0 ? decimal(model.tokens_per_second) : '–', duration(model.eta_ms)], model.mode),
    });
  }

  #showServices(services) {
    this.#services.setEmpty(services.length === 0 ? 'No service is registered: jobs wait.' : '');
    syncChildren(this.#services.body, services, {
      key: ({instance}) => instance,
      build: (service) => (service.kind === 'tokenizer' ? this.#services.row()
        : this.#row(this.#services, `${service.kind} ${service.name}`, {service: service.instance}, SERVICE_EFFECTS)),
      update: (row, service) => this.#update(row, [service.name || service.instance.slice(0, 8), service.kind,
        {badge: serviceState(service)}, service.slots > 0 ? {load: service} : '–', service.models.join(', ') || '–',
        service.silent_ms < 2_000 ? 'just now' : `${duration(service.silent_ms)} ago`], serviceMode(service)),
    });
  }

  #showSchedulers(schedulers) {
    syncChildren(this.#schedulers.body, schedulers, {
      key: ({endpoint}) => endpoint,
      build: () => this.#schedulers.row(),
      update: (row, scheduler) => cells(row, scheduler.error
        ? [scheduler.endpoint, {badge: 'no answer'}, '–', '–', '–', '–']
        : [scheduler.endpoint, {badge: scheduler.draining ? 'draining' : scheduler.mode}, count(scheduler.queued),
          count(scheduler.running), String(scheduler.term), scheduler.durable ? 'on disk' : 'none']),
    });
  }

  #row(table, what, target, effects) {
    const row = table.row();
    this.#fillActions(row.lastElementChild, what, target, effects);
    return row;
  }

  // What a queue does already cannot be asked of it again.
  #update(row, values, mode) {
    cells(row, values);
    setPossible(row.lastElementChild, mode);
  }

  #fillActions(place, what, target, effects) {
    place.classList.add('row-actions');
    replaceChildren(place, Object.keys(effects).map((action) => make('button', {
      type: 'button', class: 'small', 'data-action': action,
      onclick: () => this.#control(action, what, target, effects[action]),
    }, capitalized(action), make('span', {class: 'off-screen'}, ` ${what}`))));
  }

  async #control(action, what, target, effect) {
    setText(this.#problem, '');
    const isSure = await confirm({title: `${capitalized(action)} ${what}?`, text: effect, action: capitalized(action),
      isDangerous: action !== 'resume'});
    if (!isSure) return;
    try {
      const {schedulers} = await post('v1/queue', {action, ...target});
      const refused = schedulers.filter(({error}) => error);
      if (refused.length > 0) {
        const reasons = refused.map(({message}) => message).join('; ');
        setText(this.#problem, `${plural(refused.length, 'scheduler')} did not: ${reasons}.`);
      }
      this.refresh();
    } catch (failure) {
      setText(this.#problem, failure.message);
    }
  }
}
