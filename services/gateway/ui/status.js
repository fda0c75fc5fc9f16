// The answer of GET v1/queue as the views need it. Pure.

const TOTALS = ['queued', 'running', 'finished', 'failed', 'cancelled', 'expired'];

// Of all schedulers that answer. `problems` are those that do not: [{endpoint, message}].
export function summarize(queue) {
  const answering = queue.schedulers.filter((scheduler) => !scheduler.error);
  const totals = Object.fromEntries(TOTALS.map((name) =>
    [name, answering.reduce((sum, scheduler) => sum + scheduler[name], 0)]));
  const models = modelsOf(answering);
  const isWorking = models.some((model) => model.running > 0);
  return {
    totals,
    models,
    services: servicesOf(answering),
    schedulers: answering,
    problems: queue.schedulers.filter((scheduler) => scheduler.error),
    // The schedulers' figure is of the time in which there was work.
    tokensPerSecond: isWorking ? models.reduce((sum, model) => sum + model.tokens_per_second, 0) : 0,
    mode: joinModes(answering.map((scheduler) => scheduler.mode)),
    notices: noticesOf(answering),
  };
}

// One word for several queues: theirs if they agree.
function joinModes(modes) {
  return new Set(modes).size > 1 ? 'mixed' : modes[0] ?? 'unknown';
}

// A model's queues at all schedulers together.
function modelsOf(schedulers) {
  const byName = Map.groupBy(schedulers.flatMap((scheduler) => scheduler.models), (model) => model.name);
  return [...byName].map(([name, queues]) => ({
    name,
    mode: joinModes(queues.map((queue) => queue.mode)),
    queued: queues.reduce((sum, queue) => sum + queue.queued, 0),
    running: queues.reduce((sum, queue) => sum + queue.running, 0),
    tokens_per_second: queues.reduce((sum, queue) => sum + queue.tokens_per_second, 0),
    eta_ms: Math.max(...queues.map((queue) => queue.eta_ms)),
  })).sort((a, b) => a.name.localeCompare(b.name));
}

// A service is registered with each scheduler and works for all of them.
function servicesOf(schedulers) {
  const byInstance = Map.groupBy(schedulers.flatMap((scheduler) => scheduler.services), (service) => service.instance);
  return [...byInstance.values()].map((seen) => ({
    ...seen[0],
    running: seen.reduce((sum, service) => sum + service.running, 0),
    capacity: seen.reduce((sum, service) => sum + service.capacity, 0),
    slots: seen.reduce((sum, service) => sum + service.slots, 0),
    silent_ms: Math.min(...seen.map((service) => service.silent_ms)),
    paused: seen.some((service) => service.paused),
    draining: seen.some((service) => service.draining),
  })).sort((a, b) => `${kindOrder(a.kind)} ${a.name}`.localeCompare(`${kindOrder(b.kind)} ${b.name}`));
}

function kindOrder(kind) {
  return ['worker', 'converter', 'tokenizer'].indexOf(kind);
}

function noticesOf(schedulers) {
  const notices = [];
  for (const scheduler of schedulers) {
    if (!scheduler.durable) notices.push(`${scheduler.endpoint} runs without a journal: a restart loses its jobs.`);
    if (scheduler.read_only) notices.push(`${scheduler.endpoint} accepts no jobs: the disk of its journal is full.`);
    if (scheduler.draining) notices.push(`${scheduler.endpoint} is stopping.`);
  }
  for (const kind of ['worker', 'tokenizer']) {
    const isThere = schedulers.some(({services}) => services.some((service) => service.kind === kind));
    if (schedulers.length > 0 && !isThere) notices.push(`No ${kind} is registered: jobs wait.`);
  }
  return notices;
}

// What keeps a service from new work, as a word; 'ready' where nothing does.
export function serviceState(service) {
  if (service.paused) return 'paused';
  if (service.draining) return 'draining';
  return service.silent_ms > 5_000 ? 'silent' : 'ready';
}
