// One choice of a request while its job runs, and when it has ended.

import {ask} from './api.js';
import {copyButton} from './copy.js';
import {make, replaceChildren, setText} from './dom.js';
import {decimal, duration, plural} from './format.js';
import {tokenPlace, tokenText} from './token_text.js';
import {tokensOf} from './tokens.js';

// Of the time in which it was computed; nothing for a job that never ran.
function speedText(result) {
  const {run_ms: run, total_ms: total} = result.timings;
  const speed = run > 0 ? `, ${decimal(result.output_tokens * 1000 / run)} tokens/s` : '';
  return `${plural(result.output_tokens, 'token')} in ${duration(total)}${speed}`;
}

const REASONS = {length: 'ended at max tokens', stop: 'ended at a stop',
  eos: 'ended by the model', end: 'ended by the model'};

export function endText(result) {
  if (result.state === 'succeeded') {
    return `Done: ${speedText(result)}, ${REASONS[result.finish_reason] ?? result.finish_reason.replaceAll('_', ' ')}.`;
  }
  if (result.state === 'cancelled') return `Stopped: ${speedText(result)}.`;
  return `The job ended as ${result.state}${result.message ? `: ${result.message}` : ''}.`;
}

export function waitText({state, position, eta_ms: eta, tokens}) {
  if (state === 'queued') {
    const wait = eta > 0 ? `, about ${duration(eta)}` : '';
    return position > 0 ? `Waiting: ${plural(position, 'job')} before it${wait}.` : `Waiting to start${wait}.`;
  }
  return tokens > 0 ? `Writing: ${plural(tokens, 'token')} so far.` : 'With a worker: the first token is to come.';
}

export class ChoiceCard {
  #output = make('span', {class: 'output'});
  #state = make('p', {class: 'choice-state'}, 'Accepted.');
  #body = make('div', {class: 'choice-body'});
  #text = '';

  // `accepted`: {job, position, eta_ms}, what the gateway answered to its submit.
  // logprobs: how many alternatives the request asks for; undefined: none, and no probabilities.
  constructor({title, prompt, accepted, logprobs, count}) {
    const {job} = accepted;
    Object.assign(this, {prompt, job, logprobs, count, isOver: false});
    setText(this.#state, waitText({state: 'queued', ...accepted}));
    replaceChildren(this.#body, make('div', {class: 'text'}, make('span', {class: 'prompt'}, prompt), this.#output),
      logprobs !== undefined && tokenPlace(logprobs));
    this.element = make('article', {class: 'choice', 'aria-label': title || 'Output'},
      make('div', {class: 'choice-head'}, title && make('h3', {}, title),
        make('a', {href: `#/jobs/${job}`}, `Job ${job.slice(0, 8)}`), copyButton(() => this.#text, 'the output')),
      this.#state, this.#body);
  }

  // For followJob().
  get handlers() {
    return {
      onProgress: (progress) => setText(this.#state, waitText(progress)),
      onText: (piece) => {
        this.#text += piece;
        this.#output.append(piece);
      },
      onRestarted: () => {
        this.#text = '';
        setText(this.#output, '');
      },
      onTrouble: (message) => setText(this.#state,
        message ? `${message} The job goes on; asking again.` : 'Connected again.'),
    };
  }

  async finish(result) {
    this.isOver = true;
    this.#text = result.text;
    setText(this.#output, result.text);
    setText(this.#state, endText(result));
    this.element.classList.toggle('failed', !['succeeded', 'cancelled'].includes(result.state));
    if (result.hypotheses?.length > 0) this.#showHypotheses(result.hypotheses.slice(0, this.count));
    else if (this.logprobs !== undefined && result.logprobs?.length > 0) await this.#showTokens();
  }

  fail(message) {
    this.isOver = true;
    this.element.classList.add('failed');
    setText(this.#state, message);
  }

  async #showTokens() {
    const tokens = tokensOf(await ask(`v1/jobs/${this.job}/record`));
    if (tokens.length === 0) return;
    const {text, details} = tokenText(tokens, this.prompt);
    replaceChildren(this.#body, text, details);
  }

  #showHypotheses(hypotheses) {
    replaceChildren(this.#body, make('ol', {class: 'hypotheses'}, hypotheses.map(({text, score}) =>
      make('li', {}, make('div', {class: 'text'}, make('span', {class: 'prompt'}, this.prompt), text),
        make('p', {class: 'muted'}, `score ${score.toFixed(3)}`)))));
  }
}
