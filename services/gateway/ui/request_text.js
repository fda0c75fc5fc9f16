// A request as a command line and as a program, to paste elsewhere. A key is never written out. Pure.

// One word of a POSIX shell.
function shellWord(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export function curlText(url, body, hasKey) {
  const lines = [
    `curl -N ${shellWord(url)}`,
    ...(hasKey ? ['-H "Authorization: Bearer $OPTSERVE_API_KEY"'] : []),
    "-H 'Content-Type: application/json'",
    `-d ${shellWord(JSON.stringify(body))}`,
  ];
  return lines.join(' \\\n  ');
}

function pythonLiteral(value) {
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${pythonLiteral(one)}`).join(', ')}}`;
  }
  return JSON.stringify(value);  // numbers and strings are written alike
}

// Parameters that the package `openai` knows by name; the others go into extra_body.
const OF_PACKAGE = ['model', 'prompt', 'best_of', 'echo', 'frequency_penalty', 'logit_bias', 'logprobs',
  'max_tokens', 'n',
  'presence_penalty', 'seed', 'stop', 'stream', 'stream_options', 'suffix', 'temperature', 'top_p', 'user'];

export function pythonText(baseUrl, body, hasKey) {
  const own = Object.entries(body).filter(([name]) => OF_PACKAGE.includes(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !OF_PACKAGE.includes(name)));
  const key = hasKey ? 'os.environ["OPTSERVE_API_KEY"]' : '"unused"';
  return [
    ...(hasKey ? ['import os', ''] : []),
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url=${JSON.stringify(baseUrl)}, api_key=${key})`,
    'for chunk in client.completions.create(',
    ...own.map(([name, value]) => `    ${name}=${pythonLiteral(value)},`),
    ...(Object.keys(extra).length > 0 ? [`    extra_body=${pythonLiteral(extra)},`] : []),
    '):',
    '    for choice in chunk.choices:',
    '        print(choice.text, end="", flush=True)',
  ].join('\n');
}
