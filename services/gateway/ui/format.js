// Numbers and times as people read them. Pure.

const whole = new Intl.NumberFormat('en');

export function count(value) {
  return whole.format(value);
}

// "12", "1.4", "0.03": three digits at most.
export function decimal(value) {
  if (!Number.isFinite(value)) return '–';
  if (value >= 100) return whole.format(Math.round(value));
  return String(Number(value.toPrecision(value >= 10 ? 3 : 2)));
}

// Of milliseconds; negative: not known.
export function duration(ms) {
  if (!Number.isFinite(ms) || ms < 0) return 'not known';
  if (ms === 0) return '0 s';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${decimal(Math.round(seconds * 10) / 10)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

export function bytes(value) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let rest = value;
  while (rest >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    ++unit;
  }
  return `${unit === 0 ? rest : decimal(rest)} ${units[unit]}`;
}

// "14:03:09", with the date where it is another day's.
export function clock(ms, now = Date.now()) {
  const at = new Date(ms);
  const time = at.toLocaleTimeString('en-GB');
  return at.toDateString() === new Date(now).toDateString() ? time : `${at.toLocaleDateString('en-CA')} ${time}`;
}

export function ago(ms, now = Date.now()) {
  const passed = Math.max(0, now - ms);
  if (passed < 1500) return 'just now';
  const text = passed < 60_000 ? `${Math.round(passed / 1000)} s` : duration(passed - passed % 60_000);
  return `${text.replace(/ 0 (s|min)$/, '')} ago`;
}

// A probability from its logarithm: "93%", "0.4%", "under 0.01%".
export function percent(logprob) {
  const share = Math.exp(logprob) * 100;
  if (share < 0.01) return 'under 0.01%';
  return `${share >= 99.5 ? Math.round(share * 10) / 10 : Number(share.toPrecision(2))}%`;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// A token or text in which blanks can be seen.
export function visible(text) {
  return text.replaceAll(' ', '␣').replaceAll('\n', '⏎').replaceAll('\t', '⇥');
}
