// The controls of the view that tries a prompt: fields of POST v1/completions (docs/http_api.md).
// `start` is what the form begins with where it differs from `standard`, the API's default, which requests leave out.

export const FIELDS = [
  {name: 'max_tokens', label: 'Max tokens', kind: 'integer', min: 1, max: 2048, standard: 16, start: 64},
  {name: 'temperature', label: 'Temperature', kind: 'number', min: 0, max: 2, step: 0.05, standard: 1, start: 0.8,
    help: '0: always the best token'},
  {name: 'top_p', label: 'Top p', kind: 'number', min: 0.01, max: 1, step: 0.01, standard: 1, start: 0.95},
  {name: 'top_k', label: 'Top k', kind: 'integer', min: 0, max: 262144, standard: 0, help: '0: all'},
  {name: 'repetition_penalty', label: 'Repetition penalty', kind: 'number', min: 0.01, max: 10,
    step: 0.05, standard: 1},
  {name: 'seed', label: 'Seed', kind: 'integer', min: 0, max: Number.MAX_SAFE_INTEGER, standard: null,
    help: 'Empty: another one each time'},
  {name: 'n', label: 'Choices (n)', kind: 'integer', min: 1, max: 10, standard: 1},
  {name: 'logprobs', label: 'Probabilities', kind: 'integer', min: 0, max: 20, standard: null, start: 5,
    help: 'Alternatives for each token; empty: none'},
  {name: 'stop', label: 'Stop texts', kind: 'lines', standard: null, help: 'One a line; \\n is a line feed'},
];

export const MORE_FIELDS = [
  {name: 'beam_width', label: 'Beam width', kind: 'integer', min: 1, max: 10, standard: 1, help: '1: no beam search'},
  {name: 'length_penalty', label: 'Length penalty of beams', kind: 'number', min: -10, max: 10, step: 0.1, standard: 1},
  {name: 'min_p', label: 'Min p', kind: 'number', min: 0, max: 1, step: 0.01, standard: 0},
  {name: 'typical_p', label: 'Typical p', kind: 'number', min: 0.01, max: 1, step: 0.01, standard: 1},
  {name: 'presence_penalty', label: 'Presence penalty', kind: 'number', min: -2, max: 2, step: 0.1, standard: 0},
  {name: 'frequency_penalty', label: 'Frequency penalty', kind: 'number', min: -2, max: 2, step: 0.1, standard: 0},
  {name: 'min_tokens', label: 'Min tokens', kind: 'integer', min: 0, max: 2048, standard: 0},
  {name: 'priority', label: 'Priority', kind: 'integer', min: 0, max: 9, standard: 0, help: 'Higher ones start first'},
  {name: 'deadline_ms', label: 'Deadline (ms)', kind: 'integer', min: 1, max: 3600000, standard: null},
  {name: 'ignore_eos', label: 'Write on after the end of the text', kind: 'flag', standard: false},
  {name: 'include_stop_str_in_output', label: 'Keep the stop text', kind: 'flag', standard: false},
  {name: 'add_special_tokens', label: 'Begin with </s>', kind: 'flag', standard: true},
];

export const ALL_FIELDS = [...FIELDS, ...MORE_FIELDS];

// What a field of the form means, from its text (or, of a flag, whether it is set). null: as the API has it anyway.
export function valueOf(field, text) {
  if (text === undefined) return null;
  if (field.kind === 'flag') return text === field.standard ? null : text;
  if (field.kind === 'lines') {
    const lines = text.split('\n').filter((line) => line !== '').map(unescaped);
    return lines.length > 0 ? lines : null;
  }
  if (text.trim() === '') return null;
  const value = Number(text);
  return value === field.standard ? null : value;
}

// In a stop text \n is a line feed and \t a tab.
function unescaped(line) {
  return line.replace(/\\([nt\\])/g, (_, letter) => ({n: '\n', t: '\t', '\\': '\\'})[letter]);
}

// What a beam search has no use for: it draws nothing, and its hypotheses have one score for all their tokens.
export const NOT_FOR_BEAMS = ['temperature', 'top_p', 'top_k', 'min_p', 'typical_p', 'seed', 'logprobs'];

export function isBeamSearch(values) {
  return Number(values.beam_width) > 1;
}

// The body of the request: model, prompt, and what differs from the defaults. `values` are the texts of the form.
export function completionBody(model, prompt, values) {
  const body = {...(model ? {model} : {}), prompt};
  for (const field of ALL_FIELDS) {
    if (isBeamSearch(values) && NOT_FOR_BEAMS.includes(field.name)) continue;
    const value = valueOf(field, values[field.name]);
    if (value !== null && value !== undefined) body[field.name] = value;
  }
  return body;
}
