// One request of the view that tries a prompt. It is sent with `background`, so that its jobs can be followed and go on
// over a lost connection; the page cancels them when it is told to stop or is closed.

import {ask, post, send} from './api.js';
import {ChoiceCard} from './choice_card.js';
import {followJob} from './event_stream.js';

export class PromptRun {
  #cards = [];
  #abort = new AbortController();
  #leave = () => this.#cancelOnTheWayOut();

  // onCards(cards) when the jobs are accepted.
  constructor(body, onCards) {
    Object.assign(this, {body, onCards, isStopped: false});
  }

  // Returns when every choice has ended. Throws ApiFailure if the request is refused.
  async run() {
    const {jobs} = await post('v1/completions', {...this.body, background: true});
    this.#cards = jobs.map((accepted, index) => new ChoiceCard({
      title: jobs.length > 1 ? `Choice ${index + 1}` : '',
      prompt: this.body.prompt,
      accepted,
      logprobs: this.body.logprobs,
      count: this.body.n ?? 1,
    }));
    addEventListener('pagehide', this.#leave);
    this.onCards(this.#cards);
    if (this.isStopped) await this.stop();
    await Promise.all(this.#cards.map((card) => this.#follow(card)));
    removeEventListener('pagehide', this.#leave);
  }

  async #follow(card) {
    try {
      const result = await followJob(card.job, card.handlers, this.#abort.signal);
      if (result) await card.finish(result);
    } catch (failure) {
      if (!card.isOver) card.fail(failure.message);
    }
  }

  // The jobs end as cancelled, and their streams with them. Throws ApiFailure if that cannot be told to the gateway.
  async stop() {
    this.isStopped = true;
    const open = this.#cards.filter((card) => !card.isOver);
    await Promise.all(open.map((card) => ask(`v1/jobs/${card.job}/cancel`, {method: 'POST'})));
  }

  #cancelOnTheWayOut() {
    for (const card of this.#cards.filter(({isOver}) => !isOver)) {
      send(`v1/jobs/${card.job}/cancel`, {method: 'POST', keepalive: true}).catch(() => {});
    }
  }
}
