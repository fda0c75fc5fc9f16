// Server-sent events of a job, read with fetch, because EventSource cannot send a key.

import {ApiFailure, failureOf, send} from './api.js';
import {retryDelay} from './poller.js';

const SILENCE_MAX_MS = 40_000;  // the gateway sends a comment at least every 15 s

// Takes the text of a stream piece by piece and gives its events. Pure.
export class EventParser {
  #rest = '';
  #event = {};

  // [{event, data, id}] of the lines that are complete.
  push(text) {
    const events = [];
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === '' || line === '\r') {
        if (this.#event.data !== undefined) events.push(this.#event);
        this.#event = {};
        continue;
      }
      const colon = line.indexOf(':');
      if (colon <= 0) continue;  // a comment
      const value = line.slice(colon + 1).replace(/^ /, '').replace(/\r$/, '');
      const name = line.slice(0, colon);
      this.#event[name] = name === 'data' && this.#event.data !== undefined ? `${this.#event.data}\n${value}` : value;
    }
    return events;
  }
}

async function readOnce(path, lastId, onEvent, signal) {
  const quiet = new AbortController();
  const stop = () => quiet.abort();
  signal.addEventListener('abort', stop);
  let timer = setTimeout(stop, SILENCE_MAX_MS);
  try {
    const answer = await send(path, {headers: lastId ? {'Last-Event-ID': lastId} : {}, signal: quiet.signal});
    if (!answer.ok) throw await failureOf(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    while (true) {
      const {done, value} = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MAX_MS);
      for (const event of parser.push(value)) onEvent(event);
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

// Follows a job to its end and returns its result; undefined if `signal` ended it. After a lost connection it goes on
// at the byte that it had reached. handlers: onProgress(progress), onText(piece), onRestarted(),
// onTrouble(message or '').
export async function followJob(job, handlers, signal) {
  const state = {lastId: '', result: undefined, failures: 0, lost: undefined};
  const onEvent = ({event, data, id}) => {
    if (id !== undefined) state.lastId = id;
    if (state.failures > 0) handlers.onTrouble?.('');
    state.failures = 0;
    const value = JSON.parse(data);
    if (event === 'progress') handlers.onProgress?.(value);
    if (event === 'text') handlers.onText?.(value.text);
    if (event === 'restarted') handlers.onRestarted?.();
    if (event === 'finished') state.result = value;
    if (event === 'error') {
      state.lost = new ApiFailure({...value.error, status: value.error.code === 'not_found' ? 404 : 503});
    }
  };
  while (!signal.aborted) {
    let failure;
    try {
      await readOnce(`v1/jobs/${job}/events`, state.lastId, onEvent, signal);
      failure = state.lost;
    } catch (error) {
      failure = error instanceof ApiFailure ? error : new ApiFailure({message: 'The connection was lost.'});
    }
    if (state.result !== undefined || signal.aborted) return state.result;
    if (failure && !failure.isPassing) throw failure;
    state.lost = undefined;
    ++state.failures;
    handlers.onTrouble?.(failure?.message ?? 'The connection was lost.');
    await pause(retryDelay(state.failures, 500), signal);
  }
  return undefined;
}
