// Starts the page: the views and which of them is shown, the status that all of them share, the key.

import {ApiFailure, apiKey, ask} from './api.js';
import {Banner} from './banner.js';
import {ConversionsView} from './conversions_view.js';
import {askForKey} from './dialogs.js';
import {make, replaceChildren} from './dom.js';
import {History} from './history.js';
import {JobView} from './job_view.js';
import {JobsView} from './jobs_view.js';
import {Poller} from './poller.js';
import {QueueView} from './queue_view.js';
import {summarize} from './status.js';
import {TryView} from './try_view.js';

const STATUS_INTERVAL_MS = 2_000;

const main = document.getElementById('main');
const history = new History();

const status = new Poller({
  intervalMs: STATUS_INTERVAL_MS,
  request: askForStatus,
  onAnswer: onStatus,
  onState: onHealth,
});
const banner = new Banner(document.getElementById('banner'), document.getElementById('health-text'),
  {retry: () => status.now(), login});

const views = {
  try: new TryView(),
  queue: new QueueView({refresh: () => status.now()}),
  jobs: new JobsView(),
  job: new JobView(),
  conversions: new ConversionsView(),
};
let shown;
let lastSummary;

// Where no scheduler answers, the gateway says of each why, with status 503; that of a proxy tells nothing.
async function askForStatus(signal) {
  const queue = await ask('v1/queue', {signal, takes: 503});
  if (queue.schedulers) return queue;
  throw new ApiFailure({message: queue.error?.message ?? 'The gateway answers with status 503.', status: 503});
}

function onStatus(queue) {
  const summary = summarize(queue);
  const isBlind = summary.schedulers.length === 0;
  banner.setProblems(summary.problems, isBlind);
  if (isBlind) return;  // the figures of before stay, marked as stale
  history.add(Date.now(), {...summary.totals, tokens: summary.tokensPerSecond});
  lastSummary = summary;
  for (const view of Object.values(views)) view.onStatus?.(summary, history);
}

// Without a key there is nothing to ask for again.
function onHealth(state) {
  banner.setState(state);
  if (!state.failure?.needsKey) return;
  status.stop();
  login();
}

async function login() {
  if (document.querySelector('dialog')) return;
  const isRefused = document.body.dataset.health === 'key' && apiKey() !== '';
  if (!await askForKey(isRefused ? 'The gateway does not know this key, or it has expired.' : '')) return;
  status.stop();
  status.start();
  show(false);
}

// "#/jobs/ID?state=dead" is the view, its argument and its parameters.
function route() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [name, argument] = path.split('/');
  if (name === 'jobs' && argument) return {name: 'job', argument, parameters: new URLSearchParams(query)};
  return {name: Object.hasOwn(views, name) && name !== 'job' ? name : 'try', parameters: new URLSearchParams(query)};
}

function show(movesFocus) {
  const {name, argument, parameters} = route();
  const view = views[name];
  shown?.onHide?.();
  shown = view;
  const title = view.titleOf?.(argument) ?? view.title;
  const heading = make('h1', {tabindex: '-1'}, title);
  replaceChildren(main, heading, view.element);
  document.title = `${title} – optserve`;
  for (const link of document.querySelectorAll('nav a')) {
    const isHere = link.hash === `#/${name === 'job' ? 'jobs' : name}`;
    if (isHere) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  view.onShow?.(parameters, argument);
  if (lastSummary) view.onStatus?.(lastSummary, history);
  if (movesFocus) {
    scrollTo(0, 0);
    heading.focus({preventScroll: true});
  }
}

document.getElementById('key-button').addEventListener('click', login);
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();  // the address belongs to the views
  main.focus();
});
addEventListener('hashchange', () => show(true));
document.addEventListener('visibilitychange', () => {
  if (document.hidden) status.stop();
  else status.start();
});

show(false);
status.start();
