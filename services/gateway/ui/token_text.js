// A text whose tokens show how likely each was: tinted by surprise, and the alternatives of the one pointed at.

import {make, replaceChildren} from './dom.js';
import {percent, visible} from './format.js';
import {SURPRISE_WORDS, surprise} from './tokens.js';

const STEPS = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity};

function alternative({name, logprob}, isDrawn) {
  const bar = make('span', {class: 'bar', 'aria-hidden': 'true'});
  bar.style.width = `${(Math.exp(logprob) * 100).toFixed(1)}%`;
  return make('li', {class: isDrawn ? 'drawn' : ''},
    make('code', {}, visible(name)), make('span', {class: 'bar-box'}, bar), make('span', {}, percent(logprob)));
}

// The drawn token is in the list even where it is not among the best.
function alternatives(token) {
  const others = token.best.filter(({id}) => id !== token.id);
  return [...others, token].sort((a, b) => b.logprob - a.logprob).map((one) => alternative(one, one === token));
}

function legend() {
  return make('p', {class: 'legend'}, 'Point at a token, or use the arrow keys. Its probability: ',
    SURPRISE_WORDS.map((words, step) => [make('span', {class: `token p${step}`}, words), ' ']));
}

// The place of a token's facts, as high as the longest list that can stand there, so that nothing moves below it.
function factsPlace(alternativesMax) {
  const facts = make('div', {class: 'token-facts', 'aria-live': 'polite'});
  facts.style.minHeight = `${2.5 + 1.65 * (1 + alternativesMax)}rem`;
  return facts;
}

// What stands under a text until its tokens are known.
export function tokenPlace(alternativesMax) {
  return make('div', {class: 'token-details'}, legend(), factsPlace(alternativesMax));
}

// {text, details}: elements. `text` is one stop of the Tab key; the arrow keys move between its tokens.
export function tokenText(tokens, prompt = '') {
  const facts = factsPlace(Math.max(...tokens.map(({best}) => best.length)));
  const spans = tokens.map((token, index) =>
    make('span', {class: `token p${surprise(token.logprob)}`, 'data-token': String(index)}, token.text));
  let current = -1;
  const choose = (index) => {
    if (index === current) return;
    spans[current]?.classList.remove('current');
    current = index;
    spans[current].classList.add('current');
    const token = tokens[current];
    replaceChildren(facts,
      make('p', {}, `Token ${current + 1} of ${tokens.length}: `, make('code', {}, visible(token.name)),
        ` ${percent(token.logprob)} `, make('span', {class: 'muted'}, `log-probability ${token.logprob.toFixed(3)}`)),
      make('ol', {class: 'alternatives'}, alternatives(token)));
  };
  const point = (event) => {
    const index = event.target.dataset?.token;
    if (index !== undefined) choose(Number(index));
  };
  const text = make('div', {
    class: 'text tokens', tabindex: '0', role: 'group', 'aria-label': 'Output, token by token',
    onmouseover: point, onclick: point,
    onkeydown: (event) => {
      if (!(event.key in STEPS) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      choose(Math.max(0, Math.min(tokens.length - 1, current + STEPS[event.key])));
      spans[current].scrollIntoView({block: 'nearest'});
    },
  }, make('span', {class: 'prompt'}, prompt), spans);
  choose(0);
  return {text, details: make('div', {class: 'token-details'}, legend(), facts)};
}
