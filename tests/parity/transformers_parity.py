#!/usr/bin/env python3
"""The engine on a GPU against Hugging Face transformers: random models of every kind and size, and the demo model.

usage: transformers_parity.py BUNDLE_FOLDER WORK_FOLDER [--models tiny,125m,...,demo] [--device cuda|cpu] [--world N]

BUNDLE_FOLDER is made by `deploy/bundle --tests`. Of each model: random weights rounded to fp16 are saved as
transformers saves them, converted by bin/optserve-converter and run by tests/gpu_parity in every type on N GPUs. The
reference is OPTForCausalLM in fp32 (no TF32, eager attention) on the same file; what transformers itself loses in fp16
and bf16 is the measure of what the engine may lose. Criteria:

  error     ||logits - reference|| / ||reference|| over all positions and real ids, for prompts in one step and in
            several: at most 1e-4 in fp32, at most 1.25 times transformers' own (+ 1e-6) in fp16 and bf16
  greedy    every greedy id is the reference's best after the same ids, or a near tie with it; so is the first
            difference between a prompt alone and among others. Near: 1e-4 of the largest logit in fp32, else twice the
            largest error of a logit in transformers' own run
  log p     of prompts and drawn ids: no further off than a near tie
  demo      the 64 greedy ids of each golden case, unless its smallest gap of the two best logits is within rounding;
            log p of the prompts within what rounding makes of it

Prints a table, writes WORK_FOLDER/parity.json; exit status 1 if a criterion fails.
"""
import argparse
import gc
import json
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import OPTConfig, OPTForCausalLM

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
FP32_ERROR_MAX = 1e-4
HALF_ERROR_RATIO_MAX = 1.25
HALF_ERROR_SLACK = 1e-6
FP32_TIE = 1e-4  # of the largest logit
HALF_TIE = 2     # times transformers' largest error: two logits are compared
DEMO_TIE = {'fp32': 1e-4, 'fp16': 0.01, 'bf16': 0.08}  # smallest gap of a case that has to come out the same
DEMO_LOGPROB_ERROR_MAX = {'fp32': 1e-3, 'fp16': 0.05, 'bf16': 0.4}
GROUPS = ('alone', 'few', 'together')  # of gpu_parity's generations

PROMPT_LENGTHS = (1, 17, 64, 130, 300)
NEW_TOKENS = 20
EMBEDDING_STD = 0.1
BIAS_STD = 0.05
NORM_STD = 0.1
# Of matrices: their standard deviation times sqrt(inputs). Scores of attention are far apart, so that it chooses; what
# is added to the residual stream is less in a deeper model, else its end would be the same vector everywhere. (A
# standard deviation of 0.02 for everything makes small models that hardly depend on their attention.)
GAINS = {'q_proj': 2, 'k_proj': 2, 'v_proj': 1.5, 'out_proj': 1.5, 'fc1': 1, 'fc2': 1, 'project_in': 1,
         'project_out': 1}
ADDED_TO_STREAM = ('out_proj', 'fc2')
CONTEXT_PART_MIN = 0.2
SEED = 20
RUN_SECONDS_MAX = 300


def sizes(layers, hidden, heads, **more):
    return {'num_hidden_layers': layers, 'hidden_size': hidden, 'num_attention_heads': heads, 'ffn_dim': 4 * hidden,
            'word_embed_proj_dim': hidden, 'vocab_size': 50272, 'max_position_embeddings': 2048, **more}


def tiny(layers, hidden, **more):
    return sizes(layers, hidden, 4, **{'vocab_size': 504, 'max_position_embeddings': 512, **more})


POST_NORM = {'do_layer_norm_before': False}
MODELS = {
    'tiny-head-64': tiny(3, 256),
    'tiny-head-80': tiny(3, 320),
    'tiny-head-128': tiny(2, 512),
    'tiny-post-norm': tiny(3, 256, word_embed_proj_dim=96, **POST_NORM),
    'tiny-untied': tiny(3, 256, tie_word_embeddings=False),
    '125m': sizes(12, 768, 12),
    '350m': sizes(24, 1024, 16, word_embed_proj_dim=512, **POST_NORM),
    '1.3b': sizes(24, 2048, 32),
    '2.7b': sizes(32, 2560, 32),
    '6.7b': sizes(32, 4096, 32),
}
EVERYTHING = 'demo,tiny,125m,350m,1.3b,2.7b,6.7b'


class Host:
    """Where programs and files are."""

    def __init__(self, arguments):
        self.bundle, self.work = Path(arguments.bundle), Path(arguments.work)
        self.device, self.world = arguments.device, arguments.world
        self.dtypes = ['fp32'] if self.device == 'cpu' else list(DTYPES)  # the CPU backend has no other

    def convert(self, source, folder):
        run([self.bundle / 'bin/optserve-converter', 'convert', source, folder, '--dtype=keep', '--shards', self.world])
        return json.loads((folder / 'manifest.json').read_text())['config']

    def ours(self, checkpoint, dtype, cases, out):  # see gpu_parity for what `out` then holds
        run([self.bundle / 'tests/gpu_parity', checkpoint, dtype, cases, out, '--device', self.device,
             '--world', self.world])
        return json.loads((out / 'generated.json').read_text())


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
    if done.returncode != 0:
        raise RuntimeError(f'{" ".join(map(str, command))}: exit status {done.returncode}: {done.stderr.strip()}')


def larger(one, other):
    return float(np.maximum(one, other))  # NaN if one of them is


class Stopwatch:
    def __init__(self):
        self.seconds, self.last = {}, time.monotonic()

    def lap(self, name):
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0) + now - self.last, 1)
        self.last = now


# ---- Random models, as transformers saves and loads them

def opt_config(name):
    config = OPTConfig(**MODELS[name], dropout=0.0, attention_dropout=0.0, architectures=['OPTForCausalLM'])
    config._attn_implementation = 'eager'
    return config


def empty_model(config):
    with torch.device('meta'):
        return OPTForCausalLM(config).eval()


def random_tensor(name, shape, num_layers, generator):
    noise = torch.randn(shape, generator=generator, device=generator.device)
    part = name.split('.')[-2]
    scale = num_layers ** -0.5 if part in ADDED_TO_STREAM else 1
    if name.endswith('.bias'):
        return BIAS_STD * scale * noise
    if 'layer_norm' in part:
        return 1 + NORM_STD * noise
    return GAINS[part] * shape[1] ** -0.5 * scale * noise if part in GAINS else EMBEDDING_STD * noise


def save_random_model(config, folder, device):
    generator = torch.Generator(device).manual_seed(SEED)
    state = {name: random_tensor(name, tensor.shape, config.num_hidden_layers, generator).to(torch.float16).cpu()
             for name, tensor in empty_model(config).state_dict().items()
             if not (name == 'lm_head.weight' and config.tie_word_embeddings)}
    folder.mkdir(parents=True)
    save_file(state, folder / 'model.safetensors', metadata={'format': 'pt'})
    config.save_pretrained(folder)
    return sum(tensor.numel() for tensor in state.values())


def load_model(config, folder, dtype, device):
    """What from_pretrained() makes, without its detour over host memory."""
    model = empty_model(config)
    state = load_file(folder / 'model.safetensors', device=device)
    for name in state:
        state[name] = state[name].to(dtype)
    if config.tie_word_embeddings:
        state['lm_head.weight'] = state['model.decoder.embed_tokens.weight']
    model.load_state_dict(state, assign=True)  # strict
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    return model


def logits_of(model, ids, device):
    return model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0].float()


def expect_same_as_from_pretrained(model, folder, ids, device):
    other = OPTForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation='eager').eval().to(device)
    torch.testing.assert_close(logits_of(model, ids, device), logits_of(other, ids, device))


def free(device):
    gc.collect()
    if device == 'cuda':
        torch.cuda.empty_cache()


# ---- The reference and what is compared with it

class Truth:
    """fp32 logits over the real ids: of the prompts, and of the steps that our generations took."""

    def __init__(self, config, vocab_real, prompts, device):
        self.pad_id, self.vocab_real, self.prompts, self.device = config.pad_token_id, vocab_real, prompts, device
        self.steps = {}  # (case, ids) -> [steps, vocab_real]

    def compute(self, model, generated):
        self.prompt_logits = [self._rows(model, prompt) for prompt in self.prompts]
        for groups in generated.values():
            for group in GROUPS:
                for case, generation in enumerate(groups[group]):
                    ids = tuple(generation['ids'])
                    if (case, ids) not in self.steps:
                        rows = self._rows(model, self.prompts[case] + list(ids[:-1]))
                        self.steps[case, ids] = rows[len(self.prompts[case]) - 1:].clone()
        self.context_part = self._context_part(model)
        self.largest = max(rows.abs().max().item() for rows in self.prompt_logits)

    def _context_part(self, model):
        """How much the logits after the first half of the longest prompt change when its tokens are others."""
        prompt, truth = self.prompts[-1], self.prompt_logits[-1]
        half = len(prompt) // 2
        rows = self._rows(model, prompt[:1] + prompt[half:2 * half - 1] + prompt[half:])
        return ((rows[half:] - truth[half:]).norm() / truth[half:].norm()).item()

    def _rows(self, model, ids):
        return logits_of(model, ids, self.device)[:, :self.vocab_real]

    def choices(self, case, ids):
        """Logits of the steps, without the id that is never drawn."""
        rows = self.steps[case, tuple(ids)].clone()
        rows[:, self.pad_id] = -torch.inf
        return rows

    def errors(self, found):
        """Relative error, largest error of one logit, share of positions with the same best id."""
        square = norm = largest = same = 0
        for rows, truth in zip(found, self.prompt_logits, strict=True):
            difference = rows.double() - truth.double()
            square += (difference ** 2).sum().item()
            norm += (truth.double() ** 2).sum().item()
            largest = larger(largest, difference.abs().max().item())
            same += (rows.argmax(-1) == truth.argmax(-1)).sum().item()
        return {'relative': (square / norm) ** 0.5, 'largest': largest,
                'best_id_same': same / sum(map(len, self.prompts))}


def read_logits(out, name, truth, vocab):
    found = []
    for case, prompt in enumerate(truth.prompts):
        rows = np.fromfile(out / f'{name}-{case}.bin', np.float32).reshape(len(prompt), vocab)
        found.append(torch.from_numpy(rows).to(truth.device)[:, :truth.vocab_real])
    return found


def distance(one, other, truth):
    square = sum(((a.double() - b.double()) ** 2).sum().item() for a, b in zip(one, other, strict=True))
    return (square / sum((t.double() ** 2).sum().item() for t in truth.prompt_logits)) ** 0.5


def greedy_result(generated, truth, tie):
    """Every drawn id against the reference's best after the same ids."""
    result = {'steps': 0, 'same': 0, 'clear_steps': 0, 'clear_same': 0, 'largest_gap': 0.0}
    for group in GROUPS:
        for case, generation in enumerate(generated[group]):
            ids = generation['ids']
            assert len(ids) == NEW_TOKENS, f'{group} case {case}: {len(ids)} ids'
            rows = truth.choices(case, ids)
            best = rows.topk(2).values
            gap = best[:, 0] - rows.gather(1, torch.tensor(ids, device=rows.device)[:, None])[:, 0]
            clear = best[:, 0] - best[:, 1] >= tie
            result['steps'] += len(ids)
            result['same'] += int((gap == 0).sum())
            result['clear_steps'] += int(clear.sum())
            result['clear_same'] += int((clear & (gap == 0)).sum())
            result['largest_gap'] = larger(result['largest_gap'], gap.max().item())
    return result


def company_result(generated, truth):
    """Whether a prompt's ids depend on what runs beside it, and how near a tie the first difference is."""
    result = {'sequences': 0, 'same': 0, 'largest_gap': 0.0}
    for group in ('few', 'together'):
        for case, generation in enumerate(generated[group]):
            alone, among = generated['alone'][case]['ids'], generation['ids']
            result['sequences'] += 1
            if alone == among:
                result['same'] += 1
                continue
            step = next(i for i, (a, b) in enumerate(zip(alone, among)) if a != b)
            row = truth.choices(case, alone)[step]
            result['largest_gap'] = larger(result['largest_gap'], abs((row[alone[step]] - row[among[step]]).item()))
    return result


def logprob_error(generated, truth):
    largest = 0.0
    for group in GROUPS:
        for case, generation in enumerate(generated[group]):
            prompt, ids = truth.prompts[case], generation['ids']
            pairs = [(truth.prompt_logits[case][:-1], prompt[1:], generation['prompt_logprobs']),
                     (truth.steps[case, tuple(ids)], ids, generation['logprobs'])]
            for rows, targets, found in pairs:
                assert len(targets) == len(found), f'{group} case {case}: {len(found)} log-probabilities'
                if not targets:
                    continue
                wanted = rows.double().log_softmax(-1).gather(1, torch.tensor(targets, device=rows.device)[:, None])
                error = np.abs(wanted[:, 0].cpu().numpy() - np.array(found, np.float64))  # null is NaN
                largest = larger(largest, error.max())
    return largest


# ---- One random model

def judge(result, dtype):
    """What of the result breaks a criterion."""
    theirs, tie, faults = result['transformers']['relative'], result['tie'], []
    if not result['context_part'] >= CONTEXT_PART_MIN:
        faults.append(f'the model hides its attention: context makes {result["context_part"]:.3g} of the logits')
    bound = FP32_ERROR_MAX if dtype == 'fp32' else HALF_ERROR_RATIO_MAX * theirs + HALF_ERROR_SLACK
    for name in ('whole', 'chunked'):
        if not result[name]['relative'] <= bound:
            faults.append(f'{name} prompts: error {result[name]["relative"]:.3g}, at most {bound:.3g}')
    for name in ('greedy', 'company'):
        if not result[name]['largest_gap'] <= tie:
            faults.append(f'{name}: ids differ by a gap of {result[name]["largest_gap"]:.3g}, a tie is {tie:.3g}')
    if result['greedy']['clear_same'] != result['greedy']['clear_steps']:
        faults.append(f'greedy: {result["greedy"]}')
    if not result['logprob_error'] <= tie:
        faults.append(f'log p: error {result["logprob_error"]:.3g}, at most {tie:.3g}')
    return faults


def compare(out, generated, truth, vocab, theirs):
    whole, chunked = (read_logits(out, name, truth, vocab) for name in ('logits', 'chunked'))
    tie = HALF_TIE * theirs['largest'] if theirs['largest'] > 0 else FP32_TIE * truth.largest
    return {'whole': truth.errors(whole), 'chunked': truth.errors(chunked), 'transformers': theirs,
            'whole_to_chunked': distance(whole, chunked, truth), 'tie': tie, 'context_part': truth.context_part,
            'different_ids': len({i for generation in generated['alone'] for i in generation['ids']}),
            'greedy': greedy_result(generated, truth, tie), 'company': company_result(generated, truth),
            'logprob_error': logprob_error(generated, truth)}


def random_prompts(vocab_real):
    random = np.random.default_rng(SEED)
    return [[2] + random.integers(4, vocab_real, length - 1).tolist() for length in PROMPT_LENGTHS]


def run_ours(host, folder, prompts, new_tokens, watch, problems):
    """Runs every type; one that cannot run is noted, and the others go on."""
    cases = folder / 'cases.json'
    cases.write_text(json.dumps({'cases': [{'prompt': p, 'new_tokens': new_tokens} for p in prompts]}))
    generated = {}
    for dtype in host.dtypes:
        try:
            generated[dtype] = host.ours(folder / 'checkpoint', dtype, cases, folder / dtype)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            problems[dtype] = {'faults': [str(error)]}
        watch.lap(f'ours {dtype}')
    return generated


def random_model(host, name, folder):
    config, watch, results = opt_config(name), Stopwatch(), {}
    parameters = save_random_model(config, folder / 'transformers', host.device)
    free(host.device)
    watch.lap('make')
    spec = host.convert(folder / 'transformers', folder / 'checkpoint')
    watch.lap('convert')
    prompts = random_prompts(spec['vocab_real'])
    generated = run_ours(host, folder, prompts, NEW_TOKENS, watch, results)
    truth = Truth(config, spec['vocab_real'], prompts, host.device)
    for dtype in ['fp32'] + [dtype for dtype in generated if dtype != 'fp32']:
        model = load_model(config, folder / 'transformers', DTYPES[dtype], host.device)
        if dtype == 'fp32':
            truth.compute(model, generated)
            if name.startswith('tiny'):
                expect_same_as_from_pretrained(model, folder / 'transformers', prompts[1], host.device)
        theirs = truth.errors([logits_of(model, prompt, host.device)[:, :spec['vocab_real']] for prompt in prompts])
        del model
        free(host.device)
        watch.lap(f'transformers {dtype}')
        if dtype in generated:
            results[dtype] = compare(folder / dtype, generated[dtype], truth, spec['vocab'], theirs)
            results[dtype]['faults'] = judge(results[dtype], dtype)
            results[dtype]['backend'] = generated[dtype]['backend']
            watch.lap('compare')
    return {'parameters': parameters, 'dtypes': results, 'seconds': watch.seconds}


# ---- The demo model

def demo_result(generated, goldens, dtype):
    result = {'cases': len(goldens), 'same': {}, 'within_rounding': [], 'prompt_logprob_error': 0.0, 'faults': []}
    for group in GROUPS:
        result['same'][group] = 0
        for golden, generation in zip(goldens, generated[group]):
            errors = np.abs(np.array(generation['prompt_logprobs'], np.float64) - golden['prompt_logprobs'])
            result['prompt_logprob_error'] = larger(result['prompt_logprob_error'], errors.max(initial=0))
            if generation['ids'] == golden['greedy_ids']:
                result['same'][group] += 1
                continue
            step = next(i for i, (a, b) in enumerate(zip(generation['ids'], golden['greedy_ids'])) if a != b)
            what = (f'{group}, "{golden["prompt"]}": first difference at new token {step}, smallest gap '
                    f'{golden["smallest_top2_gap"]:.4f}')
            is_tie = golden['smallest_top2_gap'] < DEMO_TIE[dtype]
            result['within_rounding' if is_tie else 'faults'].append(what)
    if not result['prompt_logprob_error'] <= DEMO_LOGPROB_ERROR_MAX[dtype]:
        result['faults'].append(f'log p of the prompts: error {result["prompt_logprob_error"]:.3g}')
    return result


def demo_model(host, folder):
    watch, results = Stopwatch(), {}
    source = Path(__file__).resolve().parents[2] / 'deploy/demo-model'
    goldens = json.loads((source / 'golden.json').read_text())['cases']
    folder.mkdir(parents=True)
    host.convert(source, folder / 'checkpoint')
    watch.lap('convert')
    prompts = [golden['prompt_ids'] for golden in goldens]
    for dtype, generated in run_ours(host, folder, prompts, len(goldens[0]['greedy_ids']), watch, results).items():
        results[dtype] = {**demo_result(generated, goldens, dtype), 'backend': generated['backend']}
    return {'dtypes': results, 'seconds': watch.seconds}


# ---- All of them

def chosen_models(text):
    names = []
    for word in text.split(','):
        found = [name for name in [*MODELS, 'demo'] if name == word or name.startswith(word + '-')]
        if not found:
            sys.exit(f'--models: {word} is none of {", ".join(["tiny", *MODELS, "demo"])}')
        names += found
    return names


def try_model(host, name):
    folder = host.work / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with torch.no_grad():
            return demo_model(host, folder) if name == 'demo' else random_model(host, name, folder)
    except Exception as error:  # the other models are still worth their time on the device
        traceback.print_exc()
        return {'dtypes': {'all': {'faults': [f'{type(error).__name__}: {error}']}}, 'seconds': {}}
    finally:
        free(host.device)
        shutil.rmtree(folder, ignore_errors=True)


COLUMNS = '{:<15}{:<6}{:>9}{:>10}{:>9}{:>13}{:>8}{:>13}{:>11}{:>9}  {}'


def table(models):
    yield COLUMNS.format('model', 'type', 'error', 'transf.', 'chunked', 'whole-chunk', 'log p', 'greedy', 'clear',
                         'company', 'verdict')
    for name, model in models.items():
        for dtype, r in model['dtypes'].items():
            verdict = 'FAILED' if r['faults'] else 'ok'
            if 'same' in r:
                same = ', '.join(f'{group} {count}' for group, count in r['same'].items())
                yield (f'{name:<15}{dtype:<6} goldens of {r["cases"]} cases (few: 3) that are the same: {same}; within '
                       f'rounding {len(r["within_rounding"])}; log p {r["prompt_logprob_error"]:.1e}  {verdict}')
            elif 'whole' in r:
                greedy, company = r['greedy'], r['company']
                yield COLUMNS.format(
                    name, dtype, f'{r["whole"]["relative"]:.2e}', f'{r["transformers"]["relative"]:.2e}',
                    f'{r["chunked"]["relative"]:.2e}', f'{r["whole_to_chunked"]:.2e}', f'{r["logprob_error"]:.0e}',
                    f'{greedy["same"]}/{greedy["steps"]}', f'{greedy["clear_same"]}/{greedy["clear_steps"]}',
                    f'{company["same"]}/{company["sequences"]}', verdict)
            else:
                yield f'{name:<15}{dtype:<6} {verdict}'
    yield ('error, transf., chunked: of the logits, ours, that of transformers in the same type, ours with prompts in '
           'several steps. greedy: ids that are the reference\'s best; clear: of those where the two best are no near '
           'tie; company: prompts whose ids are the same alone and among others.')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('bundle')
    parser.add_argument('work')
    parser.add_argument('--models', default=EVERYTHING)
    parser.add_argument('--device', default='cuda', choices=['cuda', 'cpu'])
    parser.add_argument('--world', type=int, default=1, choices=range(1, 9))
    arguments = parser.parse_args()
    names = chosen_models(arguments.models)
    host = Host(arguments)
    transformers.utils.logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    host.work.mkdir(parents=True, exist_ok=True)
    report = {'world': host.world, 'torch': torch.__version__, 'transformers': transformers.__version__, 'models': {},
              'device': torch.cuda.get_device_name() if host.device == 'cuda' else 'cpu'}
    for name in names:
        report['models'][name] = model = try_model(host, name)
        print(f'{name}: {model["seconds"]}', file=sys.stderr, flush=True)
        for dtype, result in model['dtypes'].items():
            for fault in result['faults']:
                print(f'{name} {dtype}: {fault}', file=sys.stderr, flush=True)
        (host.work / 'parity.json').write_text(json.dumps(report, indent=1) + '\n')  # also if a later model is cut off
    print(f'{report["device"]}, ranks: {host.world}, torch {report["torch"]}, transformers {report["transformers"]}')
    print('\n'.join(table(report['models'])))
    failed = any(r['faults'] for model in report['models'].values() for r in model['dtypes'].values())
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
