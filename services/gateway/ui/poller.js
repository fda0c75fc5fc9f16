// Asks again and again: at an interval while answers come, with growing pauses while they do not.

const RETRY_MAX_MS = 30_000;
const LATE_MS = 3_000;

// The pause after so many failures in a row. `random` in [0, 1) spreads pages that lost the same gateway.
export function retryDelay(failures, firstMs, random = Math.random()) {
  const full = Math.min(RETRY_MAX_MS, firstMs * 2 ** Math.max(0, failures - 1));
  return Math.round(full * (0.75 + 0.25 * random));
}

// `request(signal)` asks; onAnswer(answer) gets what it returns. onState({kind, since, message, nextAt, failure}) hears
// of each change: 'ok', 'late' (an answer is overdue) or 'down'.
export class Poller {
  #timer;
  #lateTimer;
  #abort;
  #failures = 0;
  #downSince = 0;

  constructor({request, onAnswer, onState = () => {}, intervalMs}) {
    Object.assign(this, {request, onAnswer, onState, intervalMs, isRunning: false});
  }

  start() {
    if (this.isRunning) return;
    this.isRunning = true;
    this.now();
  }

  stop() {
    this.isRunning = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#lateTimer);
    this.#abort?.abort();
  }

  // Asks at once. What is being asked is given up.
  async now() {
    clearTimeout(this.#timer);
    clearTimeout(this.#lateTimer);
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const asked = Date.now();
    if (this.#failures === 0) {
      this.#lateTimer = setTimeout(() => this.onState({kind: 'late', since: asked}), LATE_MS);
    }
    let delay = this.intervalMs;
    try {
      const answer = await this.request(abort.signal);
      if (abort.signal.aborted) return;
      this.#failures = 0;
      this.onState({kind: 'ok', since: Date.now()});
      this.onAnswer(answer);
    } catch (failure) {
      if (abort.signal.aborted) return;
      if (this.#failures++ === 0) this.#downSince = asked;
      delay = Math.max(retryDelay(this.#failures, this.intervalMs), failure.retryAfterMs ?? 0);
      this.onState({kind: 'down', since: this.#downSince, message: failure.message,
        nextAt: Date.now() + delay, failure});
    } finally {
      if (abort === this.#abort) {
        clearTimeout(this.#lateTimer);
        clearTimeout(this.#timer);
        if (this.isRunning) this.#timer = setTimeout(() => this.now(), delay);
      }
    }
  }
}
