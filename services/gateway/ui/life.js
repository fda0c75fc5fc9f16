// A job's life from its record (GET v1/jobs/{id}/record), as steps of a time line. Pure.

import {duration, plural} from './format.js';
import {isConversion} from './job_list.js';

// The spans that follow each other: [{name, ms}]. The last one of an open job goes on until `now`.
export function spansOf(record, now) {
  const {encode_ms: encode, queue_ms: queue, first_token_ms: first, total_ms: total} = record.timings;
  const isStarted = record.attempts > 0;
  const end = total > 0 ? total : record.accepted_ms === null ? 0 : Math.max(0, now - record.accepted_ms);
  const leased = encode + queue;
  const spans = [{name: 'encoding', ms: encode}];
  spans.push({name: 'waiting', ms: isStarted ? queue : Math.max(0, end - encode)});
  if (isStarted && isConversion(record)) {
    spans.push({name: 'converting', ms: Math.max(0, end - leased)});
  } else if (isStarted) {
    spans.push({name: 'starting', ms: Math.max(0, (first > 0 ? first : end) - leased)});
    if (first > 0) spans.push({name: 'writing', ms: Math.max(0, end - first)});
  }
  return spans;
}

// What happened, in order: [{what, afterMs, note, isBad}]; afterMs from acceptance on, null where it is not known.
export function stepsOf(record) {
  const {encode_ms: encode, queue_ms: queue, first_token_ms: first, total_ms: total} = record.timings;
  const isEnded = !['queued', 'running'].includes(record.state);
  const isText = !isConversion(record);
  const steps = [{what: 'Accepted', afterMs: 0, note: 'It is in the journal.'}];
  if (isText && record.prompt_tokens > 0) {
    steps.push({what: 'Encoded', afterMs: encode, note: plural(record.prompt_tokens, 'token')});
  }
  steps.push(...attemptSteps(record, isText));
  if (isText && first > 0) {
    steps.push({what: 'First token', afterMs: first, note: `${duration(first - encode - queue)} after the lease`});
  }
  steps.sort((one, other) => (one.afterMs ?? 0) - (other.afterMs ?? 0));  // stable: what has no time stays early
  if (!isEnded) {
    steps.push(openStep(record));
  } else {
    const isGood = record.state === 'succeeded';
    const how = isGood && isText
      ? `${plural(record.output_tokens, 'token')}, ${record.finish_reason.replaceAll('_', ' ')}` : record.message;
    steps.push({what: `Ended: ${record.state}`, afterMs: total > 0 ? total : null, note: how,
      isBad: ['failed', 'dead', 'expired'].includes(record.state)});
  }
  return steps;
}

// Of attempts before the last start of the scheduler, only why they were lost is known.
function attemptSteps(record, isText) {
  const tries = record.tries ?? [];
  const {queue_ms: queue} = record.timings;
  const forgotten = record.losses.filter((why) => !tries.some(({loss}) => loss === why));
  const steps = forgotten.map((why, index) =>
    ({what: `Attempt ${index + 1} lost`, afterMs: null, note: why, isBad: true}));
  tries.forEach(({number, began_ms: began, ended_ms: ended, service, loss}, index) => {
    const isFirst = index === 0 && forgotten.length === 0;
    const kind = isText ? 'worker' : 'converter';
    steps.push({what: isFirst ? `Leased to a ${kind}` : `Attempt ${number}`, afterMs: began,
      note: isFirst ? `${service}, after ${duration(queue)} in the queue` : `on ${service}`});
    if (loss !== '') steps.push({what: `Attempt ${number} lost`, afterMs: ended, note: loss, isBad: true});
  });
  return steps;
}

function openStep(record) {
  if (record.state === 'queued') {
    const wait = record.eta_ms >= 0 ? `, about ${duration(record.eta_ms)} to go` : '';
    return {what: 'In the queue', afterMs: null,
      note: `${plural(record.position, 'job')} before it${wait}`, isOpen: true};
  }
  return {what: 'At work', afterMs: null, note: '', isOpen: true};
}
