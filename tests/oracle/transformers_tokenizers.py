"""Parts of transformers_oracle.py: what the JSON files of a folder say about ids, texts and tokens."""

import json

from tokenizers import Tokenizer

from opt_folders import config, save_safetensors, state, write_json
from transformers_run import expect, reference

def tokenize(run, checkpoint, texts, decode=()):
    return run.run(checkpoint, texts=texts, decode=list(decode))


TEXTS = ["", "The end", "a quokka, quokkas", " a<|user|>b  <|end|>\n", "<|end|><|user|>", "a</s>b", "x <mask>y",
         "caf\u00e9 \U0001f600<|user|>!"]


def tokenizers(run, demo):
    vocab = json.loads((demo / "gpt2-vocab.json").read_text())
    merges = (demo / "gpt2-merges.txt").read_text().splitlines()[1:]
    base = len(vocab)
    user, end, mark = base, base + 1, base + 2
    cfg = config(vocab=base + 3, eos_token_id=[2, end])
    tensors = state(cfg)
    fast = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "vocab": vocab, "merges": merges}}
    described = lambda content, special, **more: {
        "content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
        "special": special, **more}
    added = {user: described("<|user|>", False), end: described("<|end|>", True, rstrip=True),
             mark: described("quokka", False, single_word=True)}
    as_list = [{"id": i, **token} for i, token in added.items()]
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}},
                                                         {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}

    def files(name, with_vocab=True, **jsons):
        place = run.place(name, cfg)
        save_safetensors(place, tensors)
        if with_vocab:
            (place / "vocab.json").write_text(json.dumps(vocab))
            (place / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        for file, value in jsons.items():
            write_json(place / (file + ".json"), value)
        return place

    def check(place, leads, *options, recognised=True, warnings=()):
        reference = tokenizer_of({**fast, "added_tokens": as_list if recognised else []})
        done, checkpoint = run.convert(place, *options)
        expect(done.returncode == 0, f"{place.name}: {done.stderr}")
        for words in warnings:
            expect(words in done.stderr, f"{place.name} warns of {words}: {done.stderr}")
        served = json.loads((checkpoint / "manifest.json").read_text())["config"]
        expect(served["vocab_real"] == base + 3 and served["eos_id"] == 2 and served["more_eos_ids"] == [end],
               f"{place.name}: {served}")
        answer = tokenize(run, checkpoint, TEXTS, [[user, end, mark, 2, 300]])
        wanted = [([2] if leads else []) + reference.encode(text).ids for text in TEXTS]
        expect(answer["ids"] == wanted, f"{place.name}: {answer['ids']}, expected {wanted}")
        text = "<|user|>" + ("<|end|>" if "added_tokens.json" in place.name else "") + "quokka"
        expect(answer["texts"] == [text + reference.decode([300])], f"{place.name}: {answer['texts']}")
        print(f"ok: {place.name}: the ids of tokenizers")
        return checkpoint

    plain = {"<|user|>": user, "<|end|>": end, "quokka": mark}
    decoder = {str(i): token for i, token in added.items()}
    as_config = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": decoder, "bos_token": "</s>"}
    config_only = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>"}
    check(files("added_tokens_decoder", tokenizer_config={**as_config, "add_bos_token": True}), True)
    check(files("without bos", tokenizer_config={**as_config, "add_bos_token": False}), False)
    check(files("both", tokenizer_config=as_config, added_tokens=plain), True)
    check(files("not recognised", tokenizer_config=as_config), True, "--prompt-tokens", "none", recognised=False)
    check(files("tokenizer.json alone", False, tokenizer={**fast, "added_tokens": as_list}), True)
    pairs = {**fast["model"], "merges": [merge.split(" ") for merge in merges]}
    check(files("merges as pairs", False, tokenizer={**fast, "model": pairs, "added_tokens": as_list,
                                                      "post_processor": template}), True)
    check(files("a fast tokenizer by its class", False, tokenizer={**fast, "added_tokens": as_list},
                tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"}), False)
    check(files("with a chat template", tokenizer_config={**as_config, "chat_template": "{{ x }}"}), True,
          warnings=["chat_template is not applied"])
    place = files("added_tokens.json", tokenizer_config=config_only, added_tokens={"<|user|>": user, "<|end|>": end,
                                                                                   "madeup": mark})
    done, checkpoint = run.convert(place)
    expect(done.returncode == 0, f"added_tokens.json: {done.stderr}")
    answer = tokenize(run, checkpoint, ["<|user|>madeup<|end|>"], [[user, end]])
    expect(answer["ids"] == [[2, user, mark, end]] and answer["texts"] == ["<|user|><|end|>"], f"{answer}")
    place = files("special by special_tokens_map", tokenizer_config=config_only,
                  added_tokens={"<|user|>": user, "<|end|>": end, "madeup": mark},
                  special_tokens_map={"additional_special_tokens": ["<|end|>"]})
    done, checkpoint = run.convert(place)
    answer = tokenize(run, checkpoint, ["<|end|>"], [[user, end]])
    expect(answer["ids"] == [[2, end]] and answer["texts"] == ["<|user|>"], f"{answer}")
    place = files("all of them", tokenizer_config={**as_config, "eos_token": "<|end|>"})
    done, checkpoint = run.convert(place, "--prompt-tokens", "all")
    expect(tokenize(run, checkpoint, ["a</s>"])["ids"][0][-1] == 2, "all tokens are recognised where asked")
    # The model may stop at any of its end ids; the output shows where it does.
    prompts = [[2, 5, 6]]
    ends = run.run(checkpoint, prompts=prompts, worlds=[1], new_tokens=30)["1"][0]
    print(f"ok: greedy ids {ends['tokens'][:5]}, finished {ends['finished']}")

    for name, words, jsons in (
            ("a vocabulary with a gap", ["no token has id 300", "--tokenizer none"],
             {"vocab": {t: i for t, i in vocab.items() if i != 300}}),
            ("a vocabulary in another order", ["expected \"<unk>\" as id 3", "--tokenizer none"],
             {"vocab": {("madeupword0000" if t == "<unk>" else t): i for t, i in vocab.items()}}),
            ("ends beyond the tokenizer", [f"id {end} ends texts", "added_tokens.json"], {}),
            ("an added token in two places", ["has the id", "another file says"],
             {"added_tokens": plain, "tokenizer_config": {**as_config, "added_tokens_decoder": {
                 str(user): added[end], str(end): added[user]}}}),
            ("a space in front", ["add_prefix_space is true", "--tokenizer none"],
             {"tokenizer_config": {"add_prefix_space": True}})):
        place = files(name, **jsons)
        run.refused(place, words)
        done, checkpoint = run.convert(place, "--tokenizer", "none")
        expect(done.returncode == 0 and not list(checkpoint.glob("gpt2*")), f"{name}: ids only: {done.stderr}")
    for name, changes, words in (
            ("SentencePiece", {"model": {"type": "Unigram", "vocab": []}}, ['model is "Unigram"', "--tokenizer none"]),
            ("a normalizer", {"normalizer": {"type": "Lowercase"}}, ["normalizer is", "Lowercase"]),
            ("Galactica's digits", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, fast["pre_tokenizer"]]}}, ["pre_tokenizer is"])):
        run.refused(files(name, False, tokenizer={**fast, **changes}), words)


def tokenizer_of(description):
    return Tokenizer.from_str(json.dumps(description))


def settings(run):
    cfg = config()
    tensors = state(cfg)
    model = reference(cfg, tensors)

    def served(name, fields, generation=None, warnings=()):
        place = run.place(name, {**cfg, **fields})
        save_safetensors(place, tensors)
        if generation is not None:
            write_json(place / "generation_config.json", generation)
        checkpoint = run.same(place, model, worlds=(1,), warnings=warnings)
        return json.loads((checkpoint / "manifest.json").read_text())["config"]

    one = served("one id in a list", {"eos_token_id": [5]})
    expect(one["eos_id"] == 5 and "more_eos_ids" not in one, f"{one}")
    several = served("several ids", {"eos_token_id": [9, 5, 7]})
    expect(several["eos_id"] == 9 and several["more_eos_ids"] == [5, 7], f"{several}")
    generation = served("generation_config.json", {"eos_token_id": 2}, {"eos_token_id": [6, 4], "bos_token_id": 0})
    expect((generation["eos_id"], generation["more_eos_ids"], generation["bos_id"]) == (6, [4], 0), f"{generation}")
    nothing = served("a generation_config.json without ids", {"eos_token_id": 8}, {"transformers_version": "4.44.2"})
    expect(nothing["eos_id"] == 8, f"{nothing}")
    none = served("no end", {"eos_token_id": None}, warnings=["eos_token_id is null"])
    expect(none["eos_id"] == 2, f"{none}")
    pad = served("padding that ends texts", {"pad_token_id": 2})
    expect(pad["pad_id"] == 1, "an id that ends texts can be drawn")
    served("settings of generate()", {"prefix": "Once", "forced_eos_token_id": 2, "forced_bos_token_id": 0},
           {"temperature": 0.7, "top_p": 0.9, "do_sample": True, "num_beams": 1, "max_length": 20},
           warnings=['prefix "Once"', "forced_bos_token_id 0, forced_eos_token_id 2", "temperature 0.7",
                     "do_sample true", "top_p 0.9"])
