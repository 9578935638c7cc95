"""Reference cases for what `adapters/` leaves out: options of PEFT's methods, and methods on other kinds of models.

    python adapters_extra.py GOLDENS OUT [name ...]     reads GOLDENS/models and a few of GOLDENS/adapters, writes OUT/NAME

A folder is laid out as those of `adapters/`: `init/` and `trained/` as `save_pretrained` writes them, `golden.safetensors`
(the batch, logits, gradients of step 0, losses, logits after training and after merging, greedy tokens) and `meta.json`.
Float32 on a CPU, AdamW(lr, 0.9, 0.999, eps, weight_decay 0.01), no clipping, the same batch at every step; eps is 1e-8 unless
`meta.json` says otherwise. Where it says `step_seed`, torch's generator starts each step of training from step_seed + its number.
"""
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from typing import Callable, Optional

import peft
import torch
import transformers
from peft.tuners.lora import config as lora_configs
from safetensors.torch import load_file, save_file

VOCABULARY, WIDTH = 96, 32
LOADERS = {
    "causal": transformers.AutoModelForCausalLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "seqcls": transformers.AutoModelForSequenceClassification,
}
TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "seqcls": "SEQ_CLS"}
KINDS = {"bert_cls": "seqcls", "mt5": "seq2seq"}  # any other base is a causal language model
PROCESSES = 8


@dataclass
class Case:
    base: str
    config: Callable[[], peft.PeftConfig]
    steps: int = 4
    forward: dict = field(default_factory=dict)  # what the model's forward takes beside the batch
    merge: bool = True
    generate: bool = True
    eps: float = 1e-8
    step_seed: Optional[int] = None
    before: Optional[Callable] = None  # before(model, config, goldens), ahead of the adapter; returns tensors to keep
    after: Optional[Callable] = None  # after(model, goldens), once it is on; returns tensors to keep

    @property
    def kind(self):
        return KINDS.get(self.base, "causal")


def batch_of(kind):
    """Two rows of 12 tokens, the second padded by three: the batch of the other cases."""
    draws = torch.Generator().manual_seed(7)
    ids = torch.randint(5, VOCABULARY, (2, 12), generator=draws)
    mask = torch.ones_like(ids)
    ids[1, -3:], mask[1, -3:] = 0, 0
    if kind == "causal":
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :2] = -100
    elif kind == "seqcls":
        labels = torch.tensor([1, 2])
    else:
        labels = torch.randint(5, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(8))
        labels[1, -2:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def greedy(model, kind, batch):
    """Eight tokens by the largest logit; a causal model's prompts are padded on the left."""
    options = dict(max_new_tokens=8, min_new_tokens=8, do_sample=False, num_beams=1)
    if kind == "seqcls":
        return {}
    if kind == "seq2seq":
        return {"greedy_ids": model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options)}
    rows = [ids[mask == 1] for ids, mask in zip(batch["input_ids"], batch["attention_mask"])]
    prompts, mask = torch.zeros_like(batch["input_ids"]), torch.zeros_like(batch["attention_mask"])
    for i, row in enumerate(rows):
        prompts[i, -len(row):], mask[i, -len(row):] = row, 1
    ids = model.generate(input_ids=prompts, attention_mask=mask, pad_token_id=0, **options)
    return {"prompt_ids": prompts, "prompt_mask": mask, "greedy_ids": ids}


def attempt(what, name, action):
    """What some methods cannot do is left out of their case, with a word on it."""
    try:
        with torch.no_grad():
            return action()
    except Exception as fault:
        print(f"  {name}: no {what}: {type(fault).__name__}: {str(fault)[:150]}", flush=True)
        return None


def load_base(goldens, base, kind):
    return LOADERS[kind].from_pretrained(os.path.join(goldens, "models", base), attn_implementation="eager", dtype=torch.float32)


def save_adapter(model, folder, base):
    """Without the model card, and with names instead of paths of this machine."""
    model.save_pretrained(folder, safe_serialization=True)
    for at, _, files in os.walk(folder):
        if "README.md" in files:
            os.remove(os.path.join(at, "README.md"))
        if "adapter_config.json" in files:
            file = os.path.join(at, "adapter_config.json")
            config = json.load(open(file))
            config["base_model_name_or_path"] = base
            if config.get("prompt_tuning_init_state_dict_path"):
                config["prompt_tuning_init_state_dict_path"] = os.path.basename(config["prompt_tuning_init_state_dict_path"])
            if config["peft_type"] == "XLORA":
                config["adapters"] = {number: path.split("/adapters/")[-1] for number, path in config["adapters"].items()}
            json.dump(config, open(file, "w"), indent=2, sort_keys=True)


def save_tensors(tensors, file):
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, file)


def begin(case, goldens, seed=1):
    """The model of a case with its adapter on, and the tensors that the case keeps of that."""
    torch.manual_seed(seed)
    model = load_base(goldens, case.base, case.kind)
    config = case.config()
    config.task_type = config.task_type or TASKS[case.kind]
    config.base_model_name_or_path = case.base
    kept = dict(case.before(model, config, goldens) or {}) if case.before else {}
    torch.manual_seed(seed)
    model = peft.get_peft_model(model, config)
    kept.update((case.after(model, goldens) or {}) if case.after else {})
    return model.eval(), kept


def write_case(name, case, goldens, out, lr=5e-3, seed=1):
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    model, kept = begin(case, goldens, seed)
    trainable, total = model.get_nb_trainable_parameters()
    save_adapter(model, os.path.join(folder, "init"), case.base)

    batch = batch_of(case.kind)
    call = {**batch, **case.forward}
    tensors = {**kept, **{key: value for key, value in call.items() if torch.is_tensor(value)}}
    with torch.no_grad():
        tensors["logits_init"] = model(**call).logits
    trained = [(key, weight) for key, weight in model.named_parameters() if weight.requires_grad]
    tensors.update({f"init.{key}": weight.detach().clone() for key, weight in trained if "prompt_encoder" in key})

    optimizer = torch.optim.AdamW([weight for _, weight in trained], lr=lr, betas=(0.9, 0.999), eps=case.eps, weight_decay=0.01)
    losses = []
    model.train()
    for step in range(case.steps):
        if case.step_seed is not None:
            torch.manual_seed(case.step_seed + step)
        loss = model(**call).loss
        loss.backward()
        if step == 0:
            tensors.update({f"grad.{key}": weight.grad.clone() for key, weight in trained if weight.grad is not None})
        optimizer.step()
        if hasattr(model.base_model, "update_and_allocate"):
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)

    model.eval()
    save_adapter(model, os.path.join(folder, "trained"), case.base)
    with torch.no_grad():
        tensors["logits_trained"] = model(**call).logits
    if case.generate:
        tensors.update(attempt("greedy tokens", name, lambda: greedy(model, case.kind, batch)) or {})
    merged = attempt("merged logits", name, lambda: model.merge_and_unload()(**batch).logits) if case.merge else None
    if merged is not None:
        tensors["logits_merged"] = merged
    save_tensors(tensors, os.path.join(folder, "golden.safetensors"))
    meta = dict(
        base=case.base, kind=case.kind, steps=case.steps, lr=lr, eps=case.eps, step_seed=case.step_seed, seed=seed, trainable=trainable, total=total, merged=merged is not None,
        trainable_names=[key for key, _ in trained], peft=peft.__version__, transformers=transformers.__version__,
    )
    json.dump(meta, open(os.path.join(folder, "meta.json"), "w"), indent=1)


# Calibration

def calibration(seed, rows=6, length=16):
    return torch.randint(5, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def bases(model):
    """The weights that a start took its part from."""
    return {f"base.{key}": module.base_layer.weight.detach().clone() for key, module in model.named_modules() if hasattr(module, "lora_A")}


def eva(**options):
    batch = {key: value for key, value in batch_of("causal").items() if key != "labels"}
    return Case(
        "llama", lambda: peft.LoraConfig(**LORA, init_lora_weights="eva", eva_config=peft.EvaConfig(**options)),
        after=lambda model, _: peft.initialize_lora_eva_weights(model, [batch]))


def lora_ga(base="llama", eps=1e-8, **options):
    ids = calibration(22, rows=3)

    def before(model, config, _):
        from peft.tuners.lora.loraga import preprocess_loraga
        preprocess_loraga(model, config, lambda: model(input_ids=ids, labels=ids).loss.backward())
        return {"calibration.input_ids": ids}

    return Case(
        base, lambda: peft.LoraConfig(r=8, lora_alpha=16, init_lora_weights="lora_ga", lora_ga_config=lora_configs.LoraGAConfig(**options)),
        before=before, after=lambda model, _: bases(model), eps=eps)


def monteclora(steps=4, **options):
    """Its random draws of every step are kept, and the loss that a trainer may add at step 0."""
    def after(model, _):
        samplers = {key: module for key, module in model.named_modules() if type(module).__name__ == "MontecloraSampler"}
        kept = {f"draw.{step}.{key}.{what}": value for key, module in samplers.items()
                for step, draw in enumerate(module.sampler.buffer[:steps]) for what, value in draw.items()}
        state = {key: value.clone() for key, value in model.state_dict().items()}
        model.train()
        model(**batch_of("causal"))
        kept["auxiliary_loss_step0"] = model.base_model._get_monteclora_loss().reshape(1)
        model.load_state_dict(state)
        for module in samplers.values():
            module.sampler.index = 0
        return kept

    return Case("llama", lambda: peft.LoraConfig(**LORA, monteclora_config=lora_configs.MontecloraConfig(**options)), steps=steps, after=after)


def source_prompt(method):
    """Multitask prompt tuning that starts from the file of another: one task of its three, or the mean of them, or what they share."""
    tasks = 2 if method == "ONLY_SOURCE_SHARED" else 1

    def make():
        file = os.path.join(tempfile.mkdtemp(), "source.safetensors")
        draws = torch.Generator().manual_seed(5)
        save_file({
            "prompt_embeddings": torch.randn(4, WIDTH, generator=draws),
            "prefix_task_cols": torch.randn(3, 4, 1, generator=draws),
            "prefix_task_rows": torch.randn(3, 1, WIDTH, generator=draws),
        }, file)
        return peft.MultitaskPromptTuningConfig(
            num_virtual_tokens=4, num_tasks=tasks, num_ranks=1, prompt_tuning_init=method,
            prompt_tuning_init_state_dict_path=file, prompt_tuning_init_task=1)

    return Case("llama", make, forward={"task_ids": torch.tensor([0, tasks - 1])})


def xlora(**options):
    """Over two LoRAs of `adapters/`."""
    def prepare(model, config, goldens):
        model.config.use_cache = False
        config.adapters = {str(i): os.path.join(goldens, "adapters", name, "trained") for i, name in enumerate(["lora_random_init", "lora__llama"])}

    return Case(
        "llama", lambda: peft.XLoraConfig(**{**dict(hidden_size=WIDTH, adapters={}, xlora_depth=2, xlora_size=16, xlora_dropout_p=0.0), **options}),
        before=prepare, merge=False)


def logits_of_vectors(model, _):
    """What VB-LoRA trains, of which its file holds the largest alone."""
    return {f"init.{key}": weight.detach().clone() for key, weight in model.named_parameters() if "vblora_logits" in key}


def lstm_of_draws(model, _):
    """nn.LSTM draws its dropout in a way of each processor; here the same network takes its layers one by one and draws with torch.rand."""
    lstm = model.prompt_encoder["default"].lstm_head
    width = 2 * lstm.hidden_size

    def forward(x):
        for layer in range(lstm.num_layers):
            weights = [getattr(lstm, f"{kind}_l{layer}{end}") for end in ("", "_reverse") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            start = torch.zeros(2, x.shape[0], lstm.hidden_size)
            x = torch._VF.lstm(x, (start, start), weights, True, 1, 0.0, False, True, True)[0]
            if lstm.training and lstm.dropout > 0 and layer + 1 < lstm.num_layers:
                keep = 1 - lstm.dropout
                x = x * (torch.rand(x.shape[1], width) < keep) / keep
        return x, None

    with torch.no_grad():
        rows = model.prompt_encoder["default"].embedding.weight[None]
        lstm.eval()
        assert torch.allclose(lstm(rows)[0], forward(rows)[0], atol=1e-6)
        lstm.train()
    lstm.forward = forward


# The cases

LORA = dict(r=4, lora_alpha=8)
EPS = 1e-4
QV = dict(target_modules=["q_proj", "v_proj"])
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BASES = {"gpt2": ["c_attn", "mlp.c_proj"], "bert_cls": ["query", "output.dense"], "mt5": ["q", "wi_1"]}


def case(method, base="llama", case_options=None, **options):
    """Options that are configs of their own are given as functions."""
    return Case(
        base, lambda: getattr(peft, method)(**{key: value() if callable(value) else value for key, value in options.items()}), **(case_options or {}))


def lora(base="llama", **options):
    return case("LoraConfig", base, **{**LORA, **options})


CASES = {
    # LoRA: tied weights
    "lora_tying_embedding": lora("llama31", target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True, init_lora_weights=False),
    "lora_tying_head": lora("llama31", target_modules=["lm_head", "q_proj"], ensure_weight_tying=True, init_lora_weights=False),
    "lora_tying_both": lora("llama31", target_modules=["embed_tokens", "lm_head", "q_proj"], ensure_weight_tying=True, init_lora_weights=False),
    "lora_tying_saved": lora("llama31", modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "lora_tying_saved_head": lora("llama31", modules_to_save=["lm_head"], ensure_weight_tying=True),
    "lora_tying_saved_both": lora("llama31", modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True),
    "lora_tying_tokens": lora("llama31", trainable_token_indices={"embed_tokens": [15, 23]}, ensure_weight_tying=True),
    "lora_tying_tokens_both": lora("llama31", trainable_token_indices={"embed_tokens": [15, 23], "lm_head": [15, 23]}, ensure_weight_tying=True),
    "lora_tying_untied": lora(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True),
    "lora_tying__gpt2": lora("gpt2", target_modules=["wte", "c_attn"], ensure_weight_tying=True, init_lora_weights=False),
    "lora_tied_embedding": lora("llama31", target_modules=["embed_tokens", "q_proj"], init_lora_weights=False),
    "lora_tied_head": lora("llama31", target_modules=["lm_head", "q_proj"], init_lora_weights=False),
    "lora_tied_saved": lora("llama31", modules_to_save=["embed_tokens"]),
    "lora_tokens_of_two": lora(trainable_token_indices={"embed_tokens": [15, 23], "lm_head": [24]}),
    # LoRA: starts
    "lora_pissa_niter": lora(init_lora_weights="pissa_niter_4"),
    "lora_pissa_rslora": lora(init_lora_weights="pissa", use_rslora=True),
    "lora_pissa__gpt2": lora("gpt2", init_lora_weights="pissa"),
    "lora_olora_rslora": lora(init_lora_weights="olora", use_rslora=True),
    "lora_orthogonal__gpt2": lora("gpt2", init_lora_weights="orthogonal"),
    "lora_mica__gpt2": lora("gpt2", init_lora_weights="mica"),
    "lora_gaussian_embedding": lora(target_modules=["embed_tokens"], init_lora_weights="gaussian"),
    "lora_ga_unit": lora_ga(direction="ArBr", scale="unit"),
    "lora_ga_gd_scale": lora_ga(direction="A2rBr", scale="gd_scale"),
    "lora_ga_weight_svd": lora_ga(direction="ArB2r", scale="weight_svd"),
    "lora_ga_random": lora_ga(direction="random", scale="stable", stable_gamma=4),
    "lora_eva_rho": eva(rho=2.0),
    "lora_eva_alpha": eva(rho=2.0, adjust_scaling_factors=False),
    "lora_eva_whiten": eva(rho=1.0, whiten=True),
    # LoRA: variants
    "lora_dora_rslora": lora(use_dora=True, use_rslora=True, init_lora_weights=False),
    "lora_dora_bias": lora("qwen2", use_dora=True, bias="all", init_lora_weights=False),
    "lora_dora_head": lora(use_dora=True, target_modules=["lm_head", "v_proj"], init_lora_weights=False),
    "lora_dora__bert_cls": lora("bert_cls", use_dora=True, init_lora_weights=False),
    "lora_dora__mt5": lora("mt5", use_dora=True, init_lora_weights=False),
    "lora_velora_random": lora(velora_config=lambda: lora_configs.VeloraConfig(num_groups=4, init_type="random")),
    "lora_monteclora_entropy": monteclora(num_samples=2, buffer_size=6, sample_scaler=0.05, use_entropy=True, dirichlet_prior=0.5, kl_loss_weight=0.1),
    "lora_alora_two": lora(alora_invocation_tokens=[int(id) for id in batch_of("causal")["input_ids"][0, 5:7]], init_lora_weights=False),
    "lora_bdlora_loose": lora(
        target_modules=["q_proj", "k_proj", "o_proj"], init_lora_weights=False,
        use_bdlora=lambda: lora_configs.BdLoraConfig(target_modules_bd_a=["o_proj"], target_modules_bd_b=["q_proj"], nblocks=4, match_strict=False)),
    "lora_lora_bias__gpt2": lora("gpt2", lora_bias=True, init_lora_weights=False),
    "lora_bias_only__gpt2": lora("gpt2", bias="lora_only"),
    # LoRA: where it goes
    "lora_parameters__qwen3_moe": lora("qwen3_moe", target_modules=[], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], init_lora_weights=False),
    "lora_parameters_pattern": lora("mixtral", target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"], rank_pattern={"experts.down_proj": 2}, use_rslora=True, init_lora_weights=False),
    "lora_patterns_rslora": lora(target_modules=LINEAR, use_rslora=True, rank_pattern={"down_proj": 6}, alpha_pattern={"q_proj": 3}, init_lora_weights=False),
    "lora_layer_int": lora(target_modules=LINEAR, layers_to_transform=0),
    "lora_exclude_regex": lora(target_modules=r".*(q|k|v)_proj", exclude_modules=r".*\.1\..*k_proj"),
    "lora_many_targets": lora(target_modules=[f"model.layers.{i}.{part}.{name}" for i in range(2) for part, names in (("self_attn", LINEAR[:4]), ("mlp", LINEAR[4:])) for name in names] + ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    "lora_norm_saved": lora(modules_to_save=["norm"]),
    "lora_replication_more": lora(layer_replication=[[0, 1], [0, 2], [1, 2]], init_lora_weights=False),
    # AdaLoRA, AdaMSS, adaption prompts
    "adalora_schedule": case("AdaLoraConfig", case_options=dict(steps=9), target_r=2, init_r=4, lora_alpha=8, tinit=1, tfinal=2, deltaT=2, beta1=0.6, beta2=0.7, orth_reg_weight=0.1, total_step=9, **QV),
    "adalora__gpt2": case("AdaLoraConfig", "gpt2", dict(steps=6), target_r=2, init_r=4, tinit=1, tfinal=1, total_step=6),
    "adalora__bert_cls": case("AdaLoraConfig", "bert_cls", dict(steps=6), target_r=2, init_r=4, tinit=1, tfinal=1, total_step=6),
    "adalora__mt5": case("AdaLoraConfig", "mt5", dict(steps=6), target_r=2, init_r=4, tinit=1, tfinal=1, total_step=6),
    "adamss_asa": case("AdamssConfig", case_options=dict(steps=10), r=8, num_subspaces=3, subspace_rank=1, use_asa=True, asa_target_subspaces=3, init_warmup=1, final_warmup=7, mask_interval=2, **QV),
    "adamss_asa_betas": case("AdamssConfig", case_options=dict(steps=10), r=8, num_subspaces=3, subspace_rank=1, use_asa=True, asa_target_subspaces=5, init_warmup=0, final_warmup=9, mask_interval=3, asa_importance_beta=0.5, asa_uncertainty_beta=0.7, asa_schedule_exponent=1.0, **QV),
    "adamss_dynamic": case("AdamssConfig", r=8, num_subspaces=2, subspace_rank=2, use_dynamic_rank=True, svd_threshold=0.6, **QV),
    "adamss_bias": case("AdamssConfig", "qwen2", r=8, num_subspaces=2, subspace_rank=2, random_seed=3, **QV),
    "adaption_prompt__gpt2": case("AdaptionPromptConfig", "gpt2", adapter_len=4, adapter_layers=2, task_type="CAUSAL_LM"),
    "adaption_prompt_one__gpt2": case("AdaptionPromptConfig", "gpt2", adapter_len=3, adapter_layers=1, task_type="CAUSAL_LM"),
    # Methods that turn, scale or shift
    "beft_random": case("BeftConfig", init_weights=False),
    "beft__bert_cls": case("BeftConfig", "bert_cls"),
    "beft__mt5": case("BeftConfig", "mt5"),
    "boft_bias": case("BOFTConfig", "qwen2", boft_block_size=8, bias="all", init_weights=False, **QV),
    "boft_factors": case("BOFTConfig", boft_block_size=0, boft_block_num=8, boft_n_butterfly_factor=3, init_weights=False, **QV),
    "boft_dropout": case("BOFTConfig", case_options=dict(step_seed=100), boft_block_size=4, boft_dropout=0.5, init_weights=False, **QV),
    "hra_odd": case("HRAConfig", r=3, **QV),
    "hra_bias": case("HRAConfig", "qwen2", r=4, bias="all", init_weights=False, **QV),
    "ia3_random": case("IA3Config", init_ia3_weights=False, target_modules=["k_proj", "down_proj"], feedforward_modules=[]),
    "ia3_feedforward": case("IA3Config", init_ia3_weights=False, target_modules=["k_proj", "down_proj"], feedforward_modules=["k_proj", "down_proj"]),
    "ln_tuning__mt5": case("LNTuningConfig", "mt5"),
    "ln_tuning_saved": case("LNTuningConfig", target_modules=["input_layernorm"], modules_to_save=["lm_head"]),
    "oft_blocks": case("OFTConfig", r=8, oft_block_size=0, use_cayley_neumann=False, init_weights=False, **QV),
    "oft_dropout": case("OFTConfig", case_options=dict(step_seed=100), r=0, oft_block_size=4, module_dropout=0.5, init_weights=False, **QV),
    "oft_embedding": case("OFTConfig", r=0, oft_block_size=4, init_weights=False, target_modules=["embed_tokens", "q_proj"]),
    "oft_embedding_tied": case("OFTConfig", "llama31", r=0, oft_block_size=8, use_cayley_neumann=False, coft=True, eps=1e-1, block_share=True, init_weights=False, target_modules=["embed_tokens"]),
    "oft_share": case("OFTConfig", r=0, oft_block_size=8, block_share=True, num_cayley_neumann_terms=3, init_weights=False, **QV),
    "oft_bias": case("OFTConfig", "qwen2", r=0, oft_block_size=4, bias="oft_only", **QV),
    "road_2": case("RoadConfig", variant="road_2", group_size=8, init_weights=False, **QV),
    "road_random": case("RoadConfig", variant="road_1", group_size=16, init_weights=False, **QV),
    # Low rank
    "c3a_true": case("C3AConfig", block_size=16, init_weights=True, **QV),
    "c3a_gaussian": case("C3AConfig", block_size=8, init_weights="gaussian", block_size_pattern={"v_proj": 4}, **QV),
    "c3a_kaiming": case("C3AConfig", "qwen2", block_size=8, init_weights="kaiming_uniform", bias="c3a_only", **QV),
    "deft_qr": case("DeftConfig", r=4, decomposition_method="qr", init_weights=False, **QV),
    "deft_para": case("DeftConfig", r=4, para=True, init_weights=False, **QV),
    "delora_patterns": case("DeloraConfig", r=4, delora_lambda=8, rank_pattern={"v_proj": 2}, lambda_pattern={"q_proj": 3}, init_weights=False, **QV),
    "delora_bias": case("DeloraConfig", "qwen2", r=4, bias="delora_only", **QV),
    # Adam's step is the sign of a gradient, however small, so rounding trains: with this eps it does not (see `rounding`)
    "deft_alpha": case("DeftConfig", "qwen2", dict(eps=EPS), r=4, alpha=8, init_scale=0.5, bias="deft_only", **QV),
    "lora_ga__gpt2": lora_ga("gpt2", eps=EPS),
    "lora_bias_all__bert_cls": lora("bert_cls", case_options=dict(eps=EPS), bias="all"),
    "fourierft_pattern": case("FourierFTConfig", n_frequency=16, n_frequency_pattern={"v_proj": 8}, random_loc_seed=5, scaling=20.0, **QV),
    "fourierft_zero": case("FourierFTConfig", "qwen2", n_frequency=16, init_weights=True, bias="all", **QV),
    "frod_alpha": case("FrodConfig", regularization_alpha=0.1, sparse_rate=0.05, init_weights=False, **QV),
    "glora_vector": case("GloraConfig", "qwen2", r=4, config_A_B="vector", config_C="vector", config_D_E="vector", init_weights=False, **QV),
    "glora_constant": case("GloraConfig", "qwen2", r=4, config_A_B="constant", config_C="none", config_D_E="none", init_weights=False, **QV),
    "gralora_four": case("GraloraConfig", r=8, gralora_k=4, alpha=8, init_weights=False, **QV),
    "gralora_bias": case("GraloraConfig", "qwen2", r=4, gralora_k=2, hybrid_r=2, alpha=8, bias="gralora_only", init_weights=False, **QV),
    "hira_gaussian": case("HiraConfig", r=4, init_weights="gaussian", rank_pattern={"v_proj": 2}, **QV),
    "hira_embedding": case("HiraConfig", r=4, init_weights=False, target_modules=["embed_tokens", "q_proj"]),
    "hira_embedding__gpt2": case("HiraConfig", "gpt2", r=4, target_modules=["wte"]),
    "hira_random": case("HiraConfig", r=4, init_weights=False, **QV),
    "lily_strides": case("LilyConfig", r=4, stride_A=2, num_B=3, scaling=0.5, init_weights=False, **QV),
    "loha_patterns": case("LoHaConfig", r=4, alpha=8, rank_pattern={"v_proj": 2}, alpha_pattern={"q_proj": 3}, init_weights=False, **QV),
    "lokr_lycoris": case("LoKrConfig", r=2, alpha=4, init_weights="lycoris", decompose_both=True, **QV),
    "lokr_patterns": case("LoKrConfig", r=2, alpha=4, rank_pattern={"v_proj": 3}, alpha_pattern={"q_proj": 2}, init_weights=False, **QV),
    "miss_rest": case("MissConfig", r=5, init_weights=False, **QV),
    "miss_bias": case("MissConfig", "qwen2", r=4, bias="miss_only", **QV),
    "osf_half": case("OSFConfig", effective_rank=0.5, rank_pattern={"v_proj": 4}, **QV),
    "osf_random": case("OSFConfig", effective_rank=8, init_weights=False, **QV),
    "osf_config": case("OSFConfig", target_svd_config={f"model.layers.{i}.self_attn.{name}": 8 + i for i in range(2) for name in ("q_proj", "v_proj")}, **QV),
    "peanut_depth": case("PeanutConfig", r=4, depth=2, act_fn="gelu", scaling=0.5, init_weights=False, **QV),
    "peanut_silu": case("PeanutConfig", r=4, depth=1, act_fn="silu", init_weights=False, **QV),
    "poly_one_split": case("PolyConfig", case_options=dict(forward={"task_ids": torch.tensor([1, 2])}), r=4, n_tasks=3, n_skills=4, n_splits=1, **QV),
    "psoft_pissa": case("PsoftConfig", r=4, psoft_alpha=8, ab_svd_init="pissa_init", init_weights=False, **QV),
    "psoft_free": case("PsoftConfig", r=4, psoft_orth=False, psoft_mag_b=False, init_weights=False, **QV),
    "psoft_neumann": case("PsoftConfig", r=4, use_cayley_neumann=True, num_cayley_neumann_terms=3, cayley_neumann_eps=0.9, psoft_mag_a=False, init_weights=False, **QV),
    "psoft_lowrank": case("PsoftConfig", r=4, psoft_svd="lowrank", psoft_svd_lowrank_niter=4, random_seed=3, **QV),
    "pvera_seeded": case("PveraConfig", r=8, target_modules=["q_proj", "o_proj"], save_projection=False, projection_prng_key=5, d_initial=0.3),
    "pvera_generator": case("PveraConfig", r=8, generator_seed=5, init_weights=False, target_modules=["q_proj", "o_proj"]),
    "pvera_sampled": case("PveraConfig", case_options=dict(generate=False), r=8, generator_seed=5, sample_at_inference=True, init_weights=False, target_modules=["q_proj", "o_proj"]),
    "pvera_bias": case("PveraConfig", "qwen2", r=8, bias="pvera_only", target_modules=["q_proj", "o_proj"], init_weights=False),
    "randlora_sparse": case("RandLoraConfig", r=4, randlora_alpha=8, sparse=True, **QV),
    "randlora_very_sparse": case("RandLoraConfig", r=4, randlora_alpha=8, very_sparse=True, projection_prng_key=3, **QV),
    "shira_random": case("ShiraConfig", r=2, random_seed=5, init_weights=False, **QV),
    "shira_unseeded": case("ShiraConfig", r=2, **QV),
    "supertuning_lora": case("SupertuningConfig", sparsity=0.9, r=2, lora_alpha=4, **QV),
    "supertuning_bottom": case("SupertuningConfig", sparsity=0.95, select_top=False, **QV),
    "supertuning_unsaved": case("SupertuningConfig", sparsity=0.9, save_precomputed_indices=False, **QV),
    "tinylora_tied": case("TinyLoraConfig", r=2, u=8, weight_tying=1.0, **QV),
    "tinylora_half_tied": case("TinyLoraConfig", r=2, u=8, weight_tying=0.5, projection_seed=7, target_modules=["q_proj", "k_proj", "v_proj"]),
    "tinylora_seeded": case("TinyLoraConfig", r=2, u=8, save_projection=False, **QV),
    "trainable_tokens_tied": case("TrainableTokensConfig", "llama31", token_indices=[15, 23]),
    "trainable_tokens__gpt2": case("TrainableTokensConfig", "gpt2", token_indices=[15, 23], target_modules=["wte"]),
    "trainable_tokens_random": case("TrainableTokensConfig", token_indices=[15, 23], init_weights=False),
    "unilora_indices": case("UniLoraConfig", r=4, theta_d_length=64, save_indices=True, proj_seed=7, **QV),
    "unilora_bound": case("UniLoraConfig", r=4, theta_d_length=32, init_theta_d_bound=0.5, init_weights=False, **QV),
    "vblora_topk": case("VBLoRAConfig", case_options=dict(after=logits_of_vectors), r=4, num_vectors=16, vector_length=8, topk=3, save_only_topk_weights=True, init_logits_std=0.5, **QV),
    "vblora_topk_one": case("VBLoRAConfig", case_options=dict(after=logits_of_vectors), r=4, num_vectors=300, vector_length=8, topk=1, save_only_topk_weights=True, **QV),
    "vblora_bias": case("VBLoRAConfig", "qwen2", r=4, num_vectors=16, vector_length=4, topk=1, init_vector_bank_bound=0.2, init_logits_std=0.5, bias="vblora_only", **QV),
    "vera_options": case("VeraConfig", "qwen2", r=8, d_initial=0.3, projection_prng_key=5, bias="vera_only", **QV),
    "vera_random": case("VeraConfig", r=8, init_weights=False, **QV),
    "waveft_options": case("WaveFTConfig", n_frequency=16, n_frequency_pattern={"v_proj": 8}, scaling=5.0, random_loc_seed=3, init_weights=False, **QV),
    "waveft_sym": case("WaveFTConfig", n_frequency=16, wavelet_family="sym4", init_weights=False, **QV),
    "waveft_proportional": case("WaveFTConfig", n_frequency=16, proportional_parameters=True, n_frequency_pattern={"q_proj": 5}, wavelet_family="db2", init_weights=False, target_modules=["q_proj", "up_proj"]),
    "waveft_proportional__gpt2": case("WaveFTConfig", "gpt2", n_frequency=16, proportional_parameters=True, wavelet_family="coif1", init_weights=False, target_modules=BASES["gpt2"]),
    "waveft_plain": case("WaveFTConfig", n_frequency=16, use_idwt=False, init_weights=False, **QV),
    # Shadow
    "shadow": case("ShadowConfig", r=4, shadow_dropout=0.0, init_weights=False),
    "shadow_start": case("ShadowConfig", "qwen2", r=4, shadow_dropout=0.0, auxiliary_loss_weight=0.0),
    "shadow_layers": case("ShadowConfig", r=4, shadow_dropout=0.0, init_weights=False, shadow_num_hidden_layers=2, update_hidden_size=6, auxiliary_loss_weight=0.5, target_modules=["layers.1"], shadow_alpha=0.7),
    "shadow_narrow": case("ShadowConfig", r=4, shadow_dropout=0.0, init_weights=False, shadow_hidden_size=16, shadow_intermediate_size=24),
    "shadow_own_embedding": case("ShadowConfig", r=4, shadow_dropout=0.0, init_weights=False, share_embeddings=False, modules_to_save=["lm_head"]),
    # Prompts
    "cartridge_frozen": case("CartridgeConfig", num_virtual_tokens=5, num_frozen_tokens=2),
    "cartridge__gpt2": case("CartridgeConfig", "gpt2", num_virtual_tokens=4, num_frozen_tokens=0),
    "cpt_decay": case("CPTConfig", task_type="CAUSAL_LM", cpt_token_ids=[5, 6, 7, 8, 9, 10, 11, 12], cpt_mask=[1] * 8, cpt_tokens_type_mask=[1, 2, 3, 4, 5, 6, 7, 8], opt_weighted_loss_type="decay", opt_loss_decay_factor=0.9, opt_projection_epsilon=0.2, opt_projection_format_epsilon=0.05),
    "p_tuning_lstm_one": case("PromptEncoderConfig", num_virtual_tokens=4, encoder_hidden_size=16, encoder_reparameterization_type="LSTM", encoder_num_layers=1),
    "p_tuning_dropout": case("PromptEncoderConfig", case_options=dict(step_seed=100, after=lstm_of_draws), num_virtual_tokens=4, encoder_hidden_size=16, encoder_reparameterization_type="LSTM", encoder_num_layers=3, encoder_dropout=0.3),
    "p_tuning_mlp_dropout": case("PromptEncoderConfig", case_options=dict(step_seed=100), num_virtual_tokens=4, encoder_hidden_size=16, encoder_dropout=0.3),
    "p_tuning__mt5": case("PromptEncoderConfig", "mt5", num_virtual_tokens=4, encoder_hidden_size=16),
    "prefix_tuning_zero": case("PrefixTuningConfig", num_virtual_tokens=4, init_weights="zero"),
    "prefix_tuning_projection__mt5": case("PrefixTuningConfig", "mt5", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=16),
    "prefix_tuning_projection__bert_cls": case("PrefixTuningConfig", "bert_cls", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=16),
    "prompt_tuning_vocabulary": case("PromptTuningConfig", num_virtual_tokens=4, prompt_tuning_init="SAMPLE_VOCAB"),
    "prompt_tuning__gpt2": case("PromptTuningConfig", "gpt2", num_virtual_tokens=4),
    "multitask_average": source_prompt("AVERAGE_SOURCE_TASKS"),
    "multitask_exact": source_prompt("EXACT_SOURCE_TASK"),
    "multitask_shared": source_prompt("ONLY_SOURCE_SHARED"),
    # X-LoRA
    "xlora_shallow": xlora(xlora_depth=1),
    "xlora_topk": xlora(top_k_lora=1, softmax_temperature=0.7, global_scaling_weight=0.5),
    "xlora_softmax_topk": xlora(top_k_lora=1, enable_softmax_topk=True, layerwise_scalings=True),
    "xlora_no_softmax": xlora(enable_softmax=False, scaling_pass_value=0.3),
    "xlora_trainable": xlora(use_trainable_adapters=True),
}

# Every method that goes into linear layers, on a model of Conv1D where PEFT allows that, on an encoder and on an encoder-decoder
CONV1D = {"Deft", "FourierFT", "Frod", "Gralora", "Hira", "Pvera", "RandLora", "TinyLora", "UniLora", "VBLoRA", "Vera", "WaveFT"}

# What could not be compared: a bias before a norm has no gradient, Adam makes rounding large, and padding of both texts would have to be drawn for.
NOT_COMPARABLE = {"glora__bert_cls", "lily__mt5", "pvera__mt5"}
ROUNDED = {"fourierft__bert_cls": dict(eps=EPS), "c3a__mt5": dict(eps=EPS)}
for method, options in {
    "AdamssConfig": dict(r=8, num_subspaces=2, subspace_rank=1), "BOFTConfig": dict(boft_block_size=4, init_weights=False),
    "C3AConfig": dict(block_size=8), "DeftConfig": dict(r=4, init_weights=False), "DeloraConfig": dict(r=4, init_weights=False),
    "FourierFTConfig": dict(n_frequency=16), "FrodConfig": {}, "GloraConfig": dict(r=4, init_weights=False),
    "GraloraConfig": dict(r=4, alpha=8, init_weights=False), "HiraConfig": dict(r=4, init_weights=False), "HRAConfig": dict(r=4, init_weights=False),
    "LilyConfig": dict(r=4, init_weights=False), "LoHaConfig": dict(r=4, init_weights=False), "LoKrConfig": dict(r=2, init_weights=False),
    "MissConfig": dict(r=4, init_weights=False), "OFTConfig": dict(r=0, oft_block_size=4, init_weights=False), "OSFConfig": dict(effective_rank=8),
    "PeanutConfig": dict(r=4, init_weights=False), "PsoftConfig": dict(r=4, init_weights=False), "PveraConfig": dict(r=8, init_weights=False),
    "RandLoraConfig": dict(r=4, randlora_alpha=8, save_projection=False), "RoadConfig": dict(group_size=8, init_weights=False),
    "ShiraConfig": dict(r=2, random_seed=3, init_weights=False), "SupertuningConfig": dict(sparsity=0.9), "TinyLoraConfig": dict(r=2, u=8),
    "UniLoraConfig": dict(r=4, theta_d_length=64), "VBLoRAConfig": dict(r=4, num_vectors=16, vector_length=8), "VeraConfig": dict(r=8, init_weights=False),
    "WaveFTConfig": dict(n_frequency=16, init_weights=False),
}.items():
    for base, targets in BASES.items():
        short = method.removesuffix("Config")
        if f"{short.lower()}__{base}" not in NOT_COMPARABLE and (base != "gpt2" or short in CONV1D):
            CASES[f"{short.lower()}__{base}"] = case(method, base, ROUNDED.get(f"{short.lower()}__{base}"), target_modules=targets, **options)


# Folders of a layout of their own

def combinations(goldens, out):
    """add_weighted_adapter where it draws (DARE; seed 11 before each), and its other options, over the adapters of `weighted`."""
    folder = os.path.join(out, "weighted_more")
    os.makedirs(folder, exist_ok=True)
    model = peft.PeftModel.from_pretrained(load_base(goldens, "llama", "causal"), os.path.join(goldens, "adapters", "weighted", "a"), "a")
    model.load_adapter(os.path.join(goldens, "adapters", "weighted", "b"), "b")
    model.eval()
    batch = batch_of("causal")
    tensors = dict(batch)
    options = {
        "dare_linear": dict(combination_type="dare_linear", density=0.5),
        "dare_ties": dict(combination_type="dare_ties", density=0.5),
        "dare_linear_svd": dict(combination_type="dare_linear_svd", density=0.5),
        "dare_ties_svd": dict(combination_type="dare_ties_svd", density=0.5),
        "dare_ties_frequency": dict(combination_type="dare_ties", density=0.7, majority_sign_method="frequency"),
        "ties_frequency": dict(combination_type="ties", density=0.5, majority_sign_method="frequency"),
        "svd_rank": dict(combination_type="svd", svd_rank=2),
        "svd_thin": dict(combination_type="svd", svd_full_matrices=False),
        "svd_clamp": dict(combination_type="svd", svd_clamp=0.9),
        "negative": dict(combination_type="linear", weights=[0.7, -0.3]),
    }
    for name, option in options.items():
        def combined():
            torch.manual_seed(11)
            model.add_weighted_adapter(["a", "b"], option.pop("weights", [0.7, 0.3]), name, **option)
            model.set_adapter(name)
            return model(**batch).logits

        if (logits := attempt(name, "weighted_more", combined)) is not None:
            tensors[f"logits_{name}"] = logits
    save_tensors(tensors, os.path.join(folder, "golden.safetensors"))


def arrow(goldens, out):
    """Arrow over three LoRAs with other settings than `lora_arrow`, and what PEFT saves of it."""
    folder = os.path.join(out, "arrow_more")
    tasks = [os.path.join(goldens, "adapters", name) for name in ("weighted/a", "weighted/b", "lora_random_init/trained")]
    general = [os.path.join(goldens, "adapters", name) for name in ("lora__llama/trained", "lora_random_init/trained")]
    batch = batch_of("causal")
    tensors = dict(batch)
    for name, gks, options in [("one", False, dict(top_k=1, rng_seed=7)), ("all", False, dict(top_k=3, router_temperature=0.3, rng_seed=7)), ("general", True, dict(top_k=2, rng_seed=7))]:
        config = peft.ArrowConfig(use_gks=gks, **options)
        model = peft.create_arrow_model(load_base(goldens, "llama", "causal"), tasks, config, general_adapter_paths=general if gks else None).eval()
        print("  arrow", name, "trainable:", [key for key, weight in model.named_parameters() if weight.requires_grad][:4], "active:", model.active_adapters, flush=True)
        with torch.no_grad():
            tensors[f"logits_{name}"] = model(**batch).logits
        save_adapter(model, os.path.join(folder, name), "llama")
        print("  arrow", name, "saved:", [os.path.relpath(os.path.join(at, file), folder) for at, _, files in os.walk(os.path.join(folder, name)) for file in files], flush=True)
        for kept in os.listdir(os.path.join(folder, name)):
            if kept.startswith(("task_", "gks_")):
                shutil.rmtree(os.path.join(folder, name, kept))  # copies of the experts
    save_tensors(tensors, os.path.join(folder, "golden.safetensors"))
    json.dump(dict(base="llama", kind="causal", peft=peft.__version__), open(os.path.join(folder, "meta.json"), "w"))


def wavelets(goldens, out):
    """One spectrum as the update of one weight, under every wavelet that PEFT knows."""
    from peft.tuners.waveft.wavelet import wavelist
    folder = os.path.join(out, "wavelets")
    os.makedirs(folder, exist_ok=True)
    tensors = {}
    for family in wavelist():
        def adapted():
            torch.manual_seed(3)
            config = peft.WaveFTConfig(n_frequency=200, wavelet_family=family, init_weights=False, target_modules=["k_proj"])
            return peft.get_peft_model(load_base(goldens, "llama", "causal"), config).base_model.model.model.layers[0].self_attn.k_proj

        delta = attempt(family, "wavelets", adapted)
        if delta is not None:
            with torch.no_grad():
                delta.waveft_spectrum["default"].mul_(100)
                tensors["spectrum"] = delta.waveft_spectrum["default"]
                tensors[f"delta.{family}"] = delta.get_delta_weight("default")
    save_tensors(tensors, os.path.join(folder, "golden.safetensors"))


# In the order that PEFT nests them: the last is outermost, and SHiRA goes on a bare layer alone
MIXED = {
    "shira": lambda: peft.ShiraConfig(r=2, random_seed=3, init_weights=False, **QV),
    "lora": lambda: peft.LoraConfig(**LORA, **QV, init_lora_weights=False),
    "loha": lambda: peft.LoHaConfig(r=4, alpha=8, init_weights=False, **QV),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=4, init_weights=False, target_modules=["v_proj", "o_proj"]),
    "oft": lambda: peft.OFTConfig(r=0, oft_block_size=4, init_weights=False, **QV),
    "late": lambda: peft.LoraConfig(**LORA, **QV, init_lora_weights=False),
}


def mixed(goldens, out):
    """Adapters of several methods on one model, active in several sets; each is one model's own adapter, saved as such."""
    folder = os.path.join(out, "mixed")
    batch = batch_of("causal")
    tensors = dict(batch)
    for number, (name, config) in enumerate(MIXED.items()):
        torch.manual_seed(20 + number)
        one = peft.get_peft_model(load_base(goldens, "llama", "causal"), config())
        save_adapter(one, os.path.join(folder, name), "llama")
    model = peft.PeftMixedModel.from_pretrained(load_base(goldens, "llama", "causal"), os.path.join(folder, "shira"), "shira")
    for name in list(MIXED)[1:]:
        model.load_adapter(os.path.join(folder, name), name)
    model.eval()
    for names in (["lora"], ["shira", "lora"], ["lora", "loha"], ["shira", "lora", "lokr"], ["lora", "oft"], ["oft", "late"], ["loha", "lokr", "oft"]):
        def active():
            model.set_adapter(names)
            return model(**batch).logits

        if (logits := attempt(str(names), "mixed", active)) is not None:
            tensors["logits_" + "_".join(names)] = logits
    save_tensors(tensors, os.path.join(folder, "golden.safetensors"))


# Not C3A: its singular values come in pairs, of which a rank may cut off either
CONVERTED = {
    "loha": lambda: peft.LoHaConfig(r=4, alpha=8, init_weights=False, **QV),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=4, init_weights=False, **QV),
    "vera": lambda: peft.VeraConfig(r=8, init_weights=False, **QV),
    "miss": lambda: peft.MissConfig(r=4, init_weights=False, **QV),
    "miss_mini": lambda: peft.MissConfig(r=4, mini_r=4, init_weights="mini", modules_to_save=["lm_head"], **QV),
    "waveft": lambda: peft.WaveFTConfig(n_frequency=64, init_weights=False, target_modules=r".*(q|v)_proj"),
    "lora": lambda: peft.LoraConfig(**LORA, init_lora_weights=False, **QV),
}


def converted(goldens, out):
    """Adapters as LoRA, of a fixed rank and of a share of what they do, and what the LoRA gives."""
    from peft.tuners.lora.conversion import save_as_lora
    folder = os.path.join(out, "converted")
    batch = batch_of("causal")
    tensors = dict(batch)
    for number, (name, config) in enumerate(CONVERTED.items()):
        torch.manual_seed(30 + number)
        model = peft.get_peft_model(load_base(goldens, "llama", "causal"), config())
        save_adapter(model, os.path.join(folder, name), "llama")
        for rank in (3, 0.9):
            def convert():
                save_as_lora(os.path.join(folder, f"{name}_{rank}"), model, rank=rank)
                return peft.PeftModel.from_pretrained(load_base(goldens, "llama", "causal"), os.path.join(folder, f"{name}_{rank}")).eval()(**batch).logits

            if (logits := attempt(f"{name} {rank}", "converted", convert)) is not None:
                tensors[f"logits_{name}_{rank}"] = logits
                file = os.path.join(folder, f"{name}_{rank}", "adapter_config.json")
                kept = json.load(open(file))
                kept.update(base_model_name_or_path="llama", inference_mode=True)  # as save_pretrained has it
                json.dump(kept, open(file, "w"), indent=2, sort_keys=True)
    save_tensors(tensors, os.path.join(folder, "golden.safetensors"))


def ia3_weighted(goldens, out):
    """add_weighted_adapter of two IA3 adapters."""
    folder = os.path.join(out, "ia3_weighted")
    batch = batch_of("causal")
    for number, name in enumerate("ab"):
        torch.manual_seed(40 + number)
        config = peft.IA3Config(init_ia3_weights=False, target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
        save_adapter(peft.get_peft_model(load_base(goldens, "llama", "causal"), config), os.path.join(folder, name), "llama")
    model = peft.PeftModel.from_pretrained(load_base(goldens, "llama", "causal"), os.path.join(folder, "a"), "a")
    model.load_adapter(os.path.join(folder, "b"), "b")
    model.eval()
    with torch.no_grad():
        model.add_weighted_adapter(["a", "b"], [0.7, -0.4], "both")
        model.set_adapter("both")
        save_tensors({**batch, "logits_both": model(**batch).logits}, os.path.join(folder, "golden.safetensors"))


def rounding(goldens, out):
    """
    Whether differences after training are rounding that Adam made large: the cases that use EPS, trained in float32 and in float64 from the same
    weights. Of every weight: how far float32 is off at eps 1e-8 and at EPS, and at which gradients (least over the steps, of the largest).
    """
    folder = os.path.join(out, "rounding")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "rounding.txt"), "w") as text:
        for name, case in CASES.items():
            if case.eps != EPS:
                continue
            batch, steps, tensors = batch_of(case.kind), case.steps, {}
            for eps in (1e-8, EPS):
                for bits, dtype in ((32, torch.float32), (64, torch.float64)):
                    model, _ = begin(case, goldens)
                    model = model.to(dtype).train()
                    trained = [(key, weight) for key, weight in model.named_parameters() if weight.requires_grad]
                    optimizer = torch.optim.AdamW([weight for _, weight in trained], lr=5e-3, betas=(0.9, 0.999), eps=eps, weight_decay=0.01)
                    for step in range(steps):
                        model(**batch).loss.backward()
                        tensors.update({f"{eps}.{bits}.grad.{step}.{key}": torch.zeros_like(weight).double() if weight.grad is None else weight.grad.double() for key, weight in trained})
                        optimizer.step()
                        optimizer.zero_grad()
                    tensors.update({f"{eps}.{bits}.trained.{key}": weight.detach().double() for key, weight in trained})
                for key, _ in trained:
                    narrow, wide = (tensors[f"{eps}.{bits}.trained.{key}"] for bits in (32, 64))
                    off = (narrow - wide).abs() / wide.abs().max()
                    grads = torch.stack([tensors[f"{eps}.64.grad.{step}.{key}"].abs() for step in range(steps)])
                    largest = max(tensors[f"{eps}.64.grad.{step}.{other}"].abs().max() for step in range(steps) for other, _ in trained)
                    least = (grads / grads.amax(dim=tuple(range(1, grads.dim())), keepdim=True).clamp_min(1e-300)).amin(0)
                    for limit in (1e-3, 1e-4):
                        far = off > limit
                        text.write(f"{name}\t{eps}\t{key}\tworst {off.max():.2e}\tabove {limit}: {int(far.sum())} of {off.numel()}\t"
                                   + (f"their least gradient at most {least[far].max():.2e} of its weight's, {grads.amin(0)[far].max():.2e} itself; largest of all {largest:.2e}" if far.any() else "") + "\n")
            save_tensors({key: value for key, value in tensors.items() if key.startswith("1e-08")}, os.path.join(folder, f"{name}.safetensors"))


FOLDERS = {"weighted_more": combinations, "arrow_more": arrow, "wavelets": wavelets, "mixed": mixed, "converted": converted, "ia3_weighted": ia3_weighted, "rounding": rounding}


def write(names, goldens, out):
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for name in names:
        try:
            FOLDERS[name](goldens, out) if name in FOLDERS else write_case(name, CASES[name], goldens, out)
            print("wrote", name, flush=True)
        except Exception:
            shutil.rmtree(os.path.join(out, name), ignore_errors=True)
            print(f"FAILED {name}\n{traceback.format_exc(limit=-4)}", flush=True)


def main():
    goldens, out = sys.argv[1:3]
    names = sys.argv[3:] or [*CASES, *FOLDERS]
    print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__, "cases", len(names), flush=True)
    os.makedirs(out, exist_ok=True)
    started = time.time()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write, args=(names[i::PROCESSES], goldens, out)) for i in range(min(PROCESSES, len(names)))]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    written = [name for name in names if os.path.exists(os.path.join(out, name, "golden.safetensors"))]
    print(f"{len(written)} of {len(names)} written in {time.time() - started:.0f} s; not: {[name for name in names if name not in written]}", flush=True)


if __name__ == "__main__":
    main()
