// The tokens of a finished job, from GET v1/jobs/{id}/record. Pure.

// [{text, name, logprob, best: [{name, logprob}]}]: `text` is the token's part of the job's text, `name` what it is
// called; a token that only begins a character has no part. Nothing where there are no probabilities or no texts.
export function tokensOf(record) {
  const {ids, logprobs, best = [], token_texts: texts, text_offsets: offsets} = record;
  if (!logprobs?.length || !texts || logprobs.length !== ids.length) return [];
  const characters = [...record.text];  // offsets count code points
  return ids.map((id, index) => ({
    id,
    text: characters.slice(offsets[index], offsets[index + 1] ?? characters.length).join(''),
    name: texts[id] ?? `token_id:${id}`,
    logprob: logprobs[index],
    best: (best[index] ?? []).map((one) =>
      ({id: one.id, name: texts[one.id] ?? `token_id:${one.id}`, logprob: one.logprob})),
  }));
}

// How sure the model was, in five steps: 0 is sure, 4 is a surprise.
export function surprise(logprob) {
  const bounds = [0.8, 0.4, 0.15, 0.04];
  const probability = Math.exp(logprob);
  const step = bounds.findIndex((bound) => probability >= bound);
  return step === -1 ? bounds.length : step;
}

export const SURPRISE_WORDS = ['80% or more', '40% to 80%', '15% to 40%', '4% to 15%', 'under 4%'];
