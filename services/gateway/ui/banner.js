// Says what does not answer, since when, and when the page asks again. It lies over the lower edge of the window, where
// space is kept for it, so that nothing moves when it comes and goes.

import {make, replaceChildren, setText} from './dom.js';
import {clock, duration} from './format.js';

const WORDS = {ok: 'Live', late: 'Waiting', down: 'No answer', partial: 'Partly down', key: 'Needs a key'};

function problemText({endpoint, message}) {
  const where = message.includes(endpoint) ? '' : `The scheduler at ${endpoint} does not answer: `;
  return `${where}${where ? message : message[0].toUpperCase() + message.slice(1)}.`;
}

export class Banner {
  #state = {kind: 'ok', since: 0};
  #problems = [];
  #figuresAt = 0;
  #isBlind = false;
  #text = make('strong', {role: 'alert'});
  #countdown = make('span');  // not read out each second
  // The same elements all the time: whoever is about to press the button finds it there.
  #button = make('button', {type: 'button', onclick: () => (this.#kind() === 'key' ? this.login() : this.retry())});

  // `element` and `health` stand in the document. `retry` asks at once, `login` asks for a key.
  constructor(element, health, {retry, login}) {
    Object.assign(this, {element, health, retry, login});
    replaceChildren(element, make('p', {}, this.#text, ' ', this.#countdown), this.#button);
    setInterval(() => this.#show(), 1000);
  }

  setState(state) {
    this.#state = state;
    this.#show();
  }

  // The schedulers that do not answer, while the gateway does; isBlind: none does, and the figures stay as they were.
  setProblems(problems, isBlind) {
    this.#problems = problems;
    this.#isBlind = isBlind;
    if (!isBlind) this.#figuresAt = Date.now();
    this.#show();
  }

  #kind() {
    if (this.#state.kind === 'down' && this.#state.failure?.needsKey) return 'key';
    if (this.#state.kind !== 'ok') return this.#state.kind;
    if (this.#isBlind) return 'down';
    return this.#problems.length > 0 ? 'partial' : 'ok';
  }

  #show() {
    const kind = this.#kind();
    document.body.dataset.health = kind;
    setText(this.health, WORDS[kind]);
    this.element.hidden = kind === 'ok';
    setText(this.#text, this.#textOf(kind));
    setText(this.#countdown, this.#countdownOf(kind));
    setText(this.#button, kind === 'key' ? 'Enter a key' : 'Ask now');
  }

  #textOf(kind) {
    const stale = this.#figuresAt ? ` The figures are those of ${clock(this.#figuresAt)}.` : '';
    if (kind === 'key') return 'The gateway asks for an API key.';
    if (kind === 'late') return `The answer is overdue.${stale}`;
    if (this.#state.kind === 'down') return `${this.#state.message}${stale}`;
    return `${this.#problems.map(problemText).join(' ')}${kind === 'down' ? stale : ''}`;
  }

  #countdownOf(kind) {
    if (kind === 'late') return `No answer for ${duration(Date.now() - this.#state.since)}.`;
    if (kind !== 'down' || this.#state.kind !== 'down') return '';
    const rest = Math.max(0, Math.ceil((this.#state.nextAt - Date.now()) / 1000));
    const next = rest > 0 ? `The page asks again in ${rest} s.` : 'Asking again.';
    return `Down for ${duration(Date.now() - this.#state.since)}. ${next}`;
  }
}
