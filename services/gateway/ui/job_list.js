// Lists of jobs, read page by page from GET v1/jobs.

import {ask} from './api.js';

const PAGE = 1_000;
const JOBS_MAX = 10_000;  // in one go

export const STATES = ['queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired', 'dead'];

export function isOpen({state}) {
  return state === 'queued' || state === 'running';
}

export function isConversion({kind}) {
  return kind === 'convert';
}

// `filter`: {state, model, group, tenant}, each may be empty. Newest first: {jobs, isCut, unanswered}; isCut: there are
// more than JOBS_MAX, and the oldest ones are missing.
export async function loadJobs(filter, signal) {
  const given = Object.entries(filter).filter(([, value]) => value !== '');
  const jobs = [];
  let after = '';
  while (true) {
    const query = new URLSearchParams([...given, ['order', 'desc'], ['limit', PAGE],
      ...(after ? [['after', after]] : [])]);
    const page = await ask(`v1/jobs?${query}`, {signal});
    jobs.push(...page.jobs);
    const isEnd = page.next === null || page.unanswered.length > 0;
    if (isEnd || jobs.length >= JOBS_MAX) return {jobs, isCut: !isEnd, unanswered: page.unanswered};
    after = page.next;
  }
}

// Jobs whose id begins with the text, or whose key, group, tenant or message contains it.
export function matching(jobs, text) {
  const wanted = text.trim().toLowerCase();
  if (wanted === '') return jobs;
  return jobs.filter(({job, key, group, tenant, message}) => job.startsWith(wanted) ||
    [key, group, tenant, message].some((field) => field.toLowerCase().includes(wanted)));
}
