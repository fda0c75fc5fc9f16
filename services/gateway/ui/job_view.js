// One job: its life as a time line, its facts and its text.

import {ask} from './api.js';
import {copyButton} from './copy.js';
import {make, replaceChildren, setText} from './dom.js';
import {clock, duration} from './format.js';
import {actionButtons, showActions} from './job_actions.js';
import {isConversion, isOpen} from './job_list.js';
import {progressText} from './jobs_view.js';
import {spansOf, stepsOf} from './life.js';
import {Poller} from './poller.js';
import {badge, setBadge} from './table.js';
import {tokenText} from './token_text.js';
import {tokensOf} from './tokens.js';

function spanBar(spans) {
  const words = spans.filter(({ms}) => ms > 0).map(({name, ms}) => `${name} ${duration(ms)}`).join(', ');
  const bar = make('div', {class: 'spans', role: 'img', 'aria-label': words || 'under a millisecond'},
    spans.map(({name, ms}) => {
      const part = make('span', {class: `span ${name}`});
      part.style.flexGrow = String(ms);
      return part;
    }));
  const legend = make('p', {class: 'legend', 'aria-hidden': 'true'}, spans.map(({name, ms}) =>
    [make('span', {class: 'span-name'}, make('span', {class: `swatch ${name}`}), `${name} ${duration(ms)}`), ' ']));
  return [bar, legend];
}

function stepItem({what, afterMs, note, isBad, isOpen: isNow}, acceptedMs) {
  const at = afterMs === null || acceptedMs === null ? '' : clock(acceptedMs + afterMs);
  const after = afterMs > 0 ? `+${duration(afterMs)}` : '';
  return make('li', {class: isBad ? 'bad' : isNow ? 'now' : ''}, make('strong', {}, what), ' ',
    make('span', {class: 'muted'}, [at, after].filter(Boolean).join(', ')), note && make('p', {}, note));
}

export class JobView {
  #job = '';
  #textSection;
  #seen = '';
  #state = badge('–');
  #actions = make('div');
  #problem = make('p', {class: 'problem', role: 'alert'});
  #bar = make('div', {class: 'life-bar'});
  #steps = make('ol', {class: 'steps'});
  #facts = make('dl', {class: 'facts'});
  #text = make('div', {class: 'job-text'});
  #prompt = make('div', {class: 'text'});
  #promptSection = make('section', {'aria-labelledby': 'prompt-title', hidden: true},
    make('h2', {id: 'prompt-title'}, 'Prompt'), this.#prompt);
  #record;
  #poller = new Poller({
    intervalMs: 1_000,
    request: (signal) => ask(`v1/jobs/${this.#job}/record`, {signal}),
    onAnswer: (record) => this.#onRecord(record),
    onState: (state) => this.#onState(state),
  });

  constructor() {
    this.#textSection = make('section', {'aria-labelledby': 'text-title'}, make('div', {class: 'section-head'},
      make('h2', {id: 'text-title'}, 'Text'), copyButton(() => this.#record?.text ?? '', 'the text')), this.#text);
    this.element = make('div', {class: 'job'},
      make('p', {}, make('a', {href: '#/jobs'}, '← All jobs')),
      make('div', {class: 'section-head'},
        make('p', {class: 'job-name'}, this.#state, ' ', make('code', {class: 'job-id'})),
        this.#actions, copyButton(() => this.#job, 'the id')),
      this.#problem,
      make('section', {'aria-labelledby': 'life-title'},
        make('h2', {id: 'life-title'}, 'Its life'), this.#bar, this.#steps),
      this.#promptSection, this.#textSection,
      make('section', {'aria-labelledby': 'facts-title'}, make('h2', {id: 'facts-title'}, 'Facts'), this.#facts));
  }

  titleOf(job) {
    return `Job ${job.slice(0, 8)}`;
  }

  onShow(parameters, job) {
    this.#job = job;
    this.#seen = '';
    this.#record = undefined;
    setText(this.element.querySelector('.job-id'), job);
    setBadge(this.#state, '–');
    this.element.classList.add('loading');
    for (const part of [this.#bar, this.#steps, this.#facts, this.#text]) replaceChildren(part);
    replaceChildren(this.#actions, actionButtons(job, {
      onDone: () => this.#poller.start(),
      onFailure: ({message}) => setText(this.#problem, message),
    }));
    this.#poller.start();
  }
  onHide() {
    this.#poller.stop();
  }

  #onState({kind, failure, message}) {
    setText(this.#problem, kind === 'down' ? message : '');
    if (failure && !failure.isPassing && !failure.needsKey) this.#poller.stop();  // there is no such job
  }

  #onRecord(record) {
    if (isOpen(record)) this.#bar.classList.add('open');
    else this.#poller.stop();
    this.#record = record;
    this.element.classList.remove('loading');
    const spans = spansOf(record, Date.now());
    replaceChildren(this.#bar, spanBar(spans));
    const signature = JSON.stringify(record);
    if (signature === this.#seen) return;
    this.#seen = signature;
    setBadge(this.#state, record.state);
    showActions(this.#actions.firstElementChild, record);
    replaceChildren(this.#steps, stepsOf(record).map((step) => stepItem(step, record.accepted_ms)));
    this.#showFacts(record);
    this.#showText(record);
  }

  #showText(record) {
    this.#textSection.hidden = isConversion(record);
    this.#promptSection.hidden = record.prompt === '';
    setText(this.#prompt, record.prompt);
    const tokens = tokensOf(record);
    if (tokens.length > 0) {
      const {text, details} = tokenText(tokens);
      replaceChildren(this.#text, text, details);
    } else if (record.hypotheses?.length > 0) {
      replaceChildren(this.#text, make('ol', {class: 'hypotheses'}, record.hypotheses.map(({text, score}) =>
        make('li', {}, make('div', {class: 'text'}, text), make('p', {class: 'muted'}, `score ${score.toFixed(3)}`)))));
    } else {
      replaceChildren(this.#text,
        make('div', {class: 'text'}, record.text || make('span', {class: 'muted'}, 'None yet.')));
    }
  }

  #showFacts(record) {
    const facts = {
      Model: isConversion(record) ? 'conversion' : record.model ?? 'not known', Key: record.key, Tenant: record.tenant,
      Group: record.group, Accepted: record.accepted_ms === null ? 'not known' : clock(record.accepted_ms),
      Attempts: String(record.attempts), Progress: progressText(record),
      'Tokens of the prompt': record.prompt_tokens > 0 ? String(record.prompt_tokens) : '',
      'Log-probability': record.cumulative_logprob === undefined ? '' : record.cumulative_logprob.toFixed(3),
      Error: record.error ?? '', Trace: record.traceparent ?? '',
    };
    replaceChildren(this.#facts, Object.entries(facts).filter(([, value]) => value !== '').map(([name, value]) =>
      make('div', {}, make('dt', {}, name), make('dd', {}, value))));
  }
}
