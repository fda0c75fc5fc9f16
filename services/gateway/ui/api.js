// Requests to the gateway that served the page. Addresses are relative to it, so that a proxy may add a path.

const BASE = new URL('..', document.baseURI);
const KEY_NAME = 'optserve.key';
const PATIENCE_MS = 20_000;

// The key is kept for this tab alone.
export function apiKey() {
  return sessionStorage.getItem(KEY_NAME) ?? '';
}
export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY_NAME, key);
  else sessionStorage.removeItem(KEY_NAME);
}

export function apiUrl(path) {
  return new URL(path, BASE).href;
}

// Why a request has no good answer. `status` is 0 where nothing answered.
export class ApiFailure extends Error {
  constructor({message, status = 0, code = '', param = '', retryAfterMs = 0}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;  // the field that is wrong
    this.retryAfterMs = retryAfterMs;
  }
  get needsKey() {
    return this.status === 401;
  }
  // Whether the same request may succeed later.
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 502;
  }
}

export async function failureOf(answer) {
  let error = {};
  try {
    error = (await answer.json()).error ?? {};
  } catch {
    // of a proxy: not in the form of the API
  }
  return new ApiFailure({
    message: error.message ?? `The gateway answers with status ${answer.status}.`,
    status: answer.status,
    code: error.code ?? '',
    param: error.param ?? '',
    retryAfterMs: Number(answer.headers.get('Retry-After') ?? 0) * 1000,
  });
}

export function headersWithKey(more = {}) {
  const key = apiKey();
  return key ? {...more, Authorization: `Bearer ${key}`} : more;
}

// Fails with an ApiFailure, or, where `signal` ended it, with an AbortError.
export async function send(path, {method = 'GET', body, headers = {}, signal, keepalive = false} = {}) {
  try {
    return await fetch(apiUrl(path), {
      method,
      headers: headersWithKey(body === undefined ? headers : {...headers, 'Content-Type': 'application/json'}),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      keepalive,
      cache: 'no-store',
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiFailure({message: 'The gateway does not answer.'});
  }
}

// `options.takes`: a status that is an answer too.
export async function ask(path, options = {}) {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), options.patienceMs ?? PATIENCE_MS);
  options.signal?.addEventListener('abort', () => late.abort());
  try {
    const answer = await send(path, {...options, signal: late.signal});
    if (!answer.ok && answer.status !== options.takes) throw await failureOf(answer);
    return await answer.json();
  } catch (error) {
    if (error instanceof ApiFailure || options.signal?.aborted) throw error;
    throw new ApiFailure({message: 'The gateway does not answer in time.'});
  } finally {
    clearTimeout(timer);
  }
}

export function post(path, body, options = {}) {
  return ask(path, {...options, method: 'POST', body});
}
