// Try a prompt: the form, the output, and the same request as curl and Python.

import {apiKey, apiUrl} from './api.js';
import {ALL_FIELDS, completionBody, FIELDS, isBeamSearch, MORE_FIELDS, NOT_FOR_BEAMS} from './completion_fields.js';
import {copyButton} from './copy.js';
import {make, replaceChildren, setText} from './dom.js';
import {PromptRun} from './prompt_run.js';
import {curlText, pythonText} from './request_text.js';

function fieldElement(field) {
  const id = `field-${field.name}`;
  const start = field.start ?? field.standard ?? '';
  const help = field.help && make('small', {id: `${id}-help`}, field.help);
  const described = help ? {'aria-describedby': `${id}-help`} : {};
  if (field.kind === 'flag') {
    return make('div', {class: 'field flag'},
      make('input', {id, type: 'checkbox', checked: field.standard, ...described}),
      make('label', {for: id}, field.label));
  }
  const control = field.kind === 'lines'
    ? make('textarea', {id, rows: '2', spellcheck: 'false', ...described})
    : make('input', {id, type: 'number', min: String(field.min), max: field.max, inputmode: 'decimal',
      step: field.kind === 'integer' ? '1' : 'any', value: String(start), ...described});
  return make('div', {class: `field ${field.kind}`}, make('label', {for: id}, field.label), control, help);
}

export class TryView {
  title = 'Try a prompt';
  #run;
  #language = 'curl';
  #models = make('select', {id: 'field-model'});
  #prompt = make('textarea', {id: 'field-prompt', rows: '5', spellcheck: 'false', value: 'Once upon a time'});
  #start = make('button', {type: 'submit', class: 'primary'}, 'Run');
  #stop = make('button', {type: 'button', 'aria-disabled': 'true', onclick: () => this.#stopRun()}, 'Stop');
  #problem = make('p', {class: 'problem', role: 'alert'});
  #outputs = make('div', {class: 'choices', 'aria-live': 'off'},
    make('p', {class: 'placeholder'}, 'What the model writes appears here.'));
  #code = make('pre', {class: 'code', tabindex: '0', 'aria-label': 'The request as text'});

  constructor() {
    const stopsIt = ({key}) => key === 'Escape' && this.#stopRun();
    this.element = make('div', {class: 'try', onkeydown: stopsIt}, this.#form(),
      make('div', {class: 'try-side'},
        make('section', {'aria-labelledby': 'output-title'},
          make('div', {class: 'section-head'}, make('h2', {id: 'output-title'}, 'Output'), this.#stop), this.#outputs),
        this.#codeSection()));
    this.#showCode();
  }

  #form() {
    return make('form', {
      'aria-label': 'Request', oninput: () => this.#changed(),
      onsubmit: (event) => {
        event.preventDefault();
        this.#startRun();
      },
      onkeydown: (event) => {
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) this.#startRun();
      },
    },
    make('div', {class: 'field'}, make('label', {for: 'field-model'}, 'Model'), this.#models),
    make('div', {class: 'field'}, make('label', {for: 'field-prompt'}, 'Prompt'), this.#prompt),
    make('div', {class: 'actions'}, this.#start, make('small', {}, 'Ctrl + Enter runs it, Escape stops it')),
    this.#problem,
    make('div', {class: 'fields'}, FIELDS.map(fieldElement)),
    make('details', {}, make('summary', {}, 'More controls'),
      make('div', {class: 'fields'}, MORE_FIELDS.map(fieldElement))));
  }

  #codeSection() {
    const choice = (name, label) => make('label', {},
      make('input', {type: 'radio', name: 'language', value: name, checked: name === this.#language,
        onchange: () => {
          this.#language = name;
          this.#showCode();
        }}), label);
    return make('section', {'aria-labelledby': 'code-title'},
      make('div', {class: 'section-head'}, make('h2', {id: 'code-title'}, 'The same request'),
        make('fieldset', {class: 'switch'}, make('legend', {class: 'off-screen'}, 'Language'),
          choice('curl', 'curl'), choice('python', 'Python')),
        copyButton(() => this.#code.textContent, 'the request')),
      this.#code);
  }

  // The models of the workers, as the status of the queue names them.
  onStatus({services}) {
    const served = new Set(services.filter(({kind}) => kind === 'worker').flatMap(({models}) => models));
    const names = [...served].sort();
    const shown = [...this.#models.options].map(({value}) => value);
    if (names.length === 0 || names.join('\n') === shown.join('\n')) return;
    const chosen = this.#models.value;
    replaceChildren(this.#models, names.map((name) => make('option', {value: name, selected: name === chosen}, name)));
    this.#showCode();
  }

  onShow() {
    this.#showCode();  // there may be a key now
  }

  #body() {
    const values = {};
    for (const {name, kind} of ALL_FIELDS) {
      const control = this.#control(name);
      values[name] = kind === 'flag' ? control.checked : control.value;
    }
    return completionBody(this.#models.value, this.#prompt.value, values);
  }

  #control(name) {
    return this.element.querySelector(`#field-${name}`);
  }

  #changed() {
    const isSearch = isBeamSearch({beam_width: this.#control('beam_width').value});
    for (const name of NOT_FOR_BEAMS) this.#control(name).disabled = isSearch;
    this.#showCode();
  }

  #showCode() {
    const body = {...this.#body(), stream: true};
    const hasKey = apiKey() !== '';
    setText(this.#code, this.#language === 'curl' ? curlText(apiUrl('v1/completions'), body, hasKey)
      : pythonText(apiUrl('v1'), body, hasKey));
  }

  async #startRun() {
    const form = this.element.querySelector('form');
    if (this.#run || !form.reportValidity()) return;
    setText(this.#problem, '');
    this.#run = new PromptRun(this.#body(), (cards) => {
      replaceChildren(this.#outputs, cards.map(({element}) => element));
      const isBelow = this.#outputs.getBoundingClientRect().top > innerHeight * 0.8;
      if (isBelow) this.#outputs.parentElement.scrollIntoView({block: 'start'});  // on a phone
    });
    this.#setRunning(true);
    try {
      await this.#run.run();
    } catch (failure) {
      this.#showFailure(failure);
    }
    this.#run = undefined;
    this.#setRunning(false);
  }

  // Not `disabled`: that would take the focus away from the button that was pressed.
  #setRunning(isRunning) {
    this.#start.setAttribute('aria-disabled', String(isRunning));
    this.#stop.setAttribute('aria-disabled', String(!isRunning));
  }

  async #stopRun() {
    try {
      await this.#run?.stop();
    } catch (failure) {
      this.#showFailure(failure);
    }
  }

  #showFailure(failure) {
    setText(this.#problem, failure.message);
    if (failure.param && /^\w+$/.test(failure.param)) this.#control(failure.param)?.focus();
  }
}
