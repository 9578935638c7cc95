"""Reference cases for what `models/` lacks: variants of architectures, and every head that transformers has for a family.

    python models_extra.py OUT [part of a name ...]

Folders as `golden.py` writes them (checkpoint, `golden.safetensors`, `meta.json`), with the gradient of every parameter beside the
loss (`grad.<parameter>`); LoRA cases on the variants as folders of `adapters/`; `gguf_extra/`: blocks of the GGUF types that
`quantized/gguf/types.*` lacks, and T5 files as the gguf package writes them. transformers 5.17, torch 2.11, PEFT 0.21, float32 on a
CPU, no network. A case that fails leaves its traceback and does not stop the others.
"""
import json, os, sys, traceback, zlib
import torch
import transformers as T
from safetensors.torch import save_file

VOCAB, LENGTH = 48, 12
OUT = sys.argv[1]
ONLY = sys.argv[2:]
D = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
L = dict(D, intermediate_size=24, num_key_value_heads=1, max_position_embeddings=32)
BERT = dict(D, intermediate_size=24, max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
GPT = dict(vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2, n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
BART = dict(vocab_size=VOCAB, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
            classifier_dropout=0.0, classif_dropout=0.0, decoder_start_token_id=2, forced_bos_token_id=None, forced_eos_token_id=None)
T5 = dict(vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, dropout_rate=0.0, classifier_dropout=0.0, decoder_start_token_id=0)
DEBERTA = dict(BERT, relative_attention=True, position_buckets=8, max_relative_positions=16, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
               share_att_key=True, position_biased_input=False, pooler_dropout=0.0, type_vocab_size=0)
MOE = dict(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, decoder_sparse_step=1, norm_topk_prob=True)
HEADS = dict(cls="ForSequenceClassification", tok="ForTokenClassification", qa="ForQuestionAnswering", mlm="ForMaskedLM")
KINDS = dict(cls="seqcls", tok="tokcls", qa="qa", mlm="mlm", causal="causal", lm="seq2seq", body="features")
TASK = dict(causal="CAUSAL_LM", seq2seq="SEQ_2_SEQ_LM", seqcls="SEQ_CLS", tokcls="TOKEN_CLS", qa="QUESTION_ANS")

# Class prefix in transformers, and the config of a tiny one.
FAMILIES = {
    "llama": ("Llama", lambda: T.LlamaConfig(**L, classifier_dropout=0.0)),
    "mistral": ("Mistral", lambda: T.MistralConfig(**L, sliding_window=None, classifier_dropout=0.0)),
    "mixtral": ("Mixtral", lambda: T.MixtralConfig(**L, num_local_experts=4, num_experts_per_tok=2, sliding_window=None, classifier_dropout=0.0)),
    "qwen2": ("Qwen2", lambda: T.Qwen2Config(**L, use_sliding_window=False, classifier_dropout=0.0)),
    "qwen3": ("Qwen3", lambda: T.Qwen3Config(**L, head_dim=8, use_sliding_window=False, classifier_dropout=0.0)),
    "qwen3_moe": ("Qwen3Moe", lambda: T.Qwen3MoeConfig(**L, **MOE, classifier_dropout=0.0)),
    "gemma": ("Gemma", lambda: T.GemmaConfig(**L, head_dim=8, classifier_dropout=0.0)),
    "gemma2": ("Gemma2", lambda: T.Gemma2Config(**L, head_dim=8, sliding_window=5, query_pre_attn_scalar=8, classifier_dropout=0.0)),
    "gemma3_text": ("Gemma3Text", lambda: T.Gemma3TextConfig(**L, head_dim=8, sliding_window=5, query_pre_attn_scalar=8, layer_types=["full_attention"], classifier_dropout=0.0)),
    "phi": ("Phi", lambda: T.PhiConfig(**{**L, "num_key_value_heads": 2}, partial_rotary_factor=0.5, resid_pdrop=0.0, embd_pdrop=0.0, classifier_dropout=0.0)),
    "phi3": ("Phi3", lambda: T.Phi3Config(**L, resid_pdrop=0.0, embd_pdrop=0.0, sliding_window=None, pad_token_id=0, classifier_dropout=0.0)),
    "starcoder2": ("Starcoder2", lambda: T.Starcoder2Config(**L, sliding_window=None, residual_dropout=0.0, embedding_dropout=0.0, classifier_dropout=0.0)),
    "stablelm": ("StableLm", lambda: T.StableLmConfig(**L, use_qkv_bias=True, classifier_dropout=0.0)),
    "olmo2": ("Olmo2", lambda: T.Olmo2Config(**L, pad_token_id=0, classifier_dropout=0.0)),
    "granite": ("Granite", lambda: T.GraniteConfig(**L, classifier_dropout=0.0)),
    "smollm3": ("SmolLM3", lambda: T.SmolLM3Config(**L, no_rope_layers=[1], pad_token_id=0, classifier_dropout=0.0)),
    "cohere": ("Cohere", lambda: T.CohereConfig(**L)),
    "gpt2": ("GPT2", lambda: T.GPT2Config(**GPT, classifier_dropout=0.0)),
    "gptj": ("GPTJ", lambda: T.GPTJConfig(**GPT, rotary_dim=4)),
    "gpt_neox": ("GPTNeoX", lambda: T.GPTNeoXConfig(**D, intermediate_size=24, max_position_embeddings=32, rotary_pct=0.25, hidden_dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0)),
    "opt": ("OPT", lambda: T.OPTConfig(**D, ffn_dim=24, max_position_embeddings=32, word_embed_proj_dim=16, dropout=0.0, attention_dropout=0.0)),
    "bloom": ("Bloom", lambda: T.BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2, hidden_dropout=0.0, attention_dropout=0.0)),
    "falcon": ("Falcon", lambda: T.FalconConfig(**D, multi_query=True, parallel_attn=True, alibi=False, hidden_dropout=0.0, attention_dropout=0.0, max_position_embeddings=32)),
    "bert": ("Bert", lambda: T.BertConfig(**BERT)),
    "roberta": ("Roberta", lambda: T.RobertaConfig(**BERT)),
    "electra": ("Electra", lambda: T.ElectraConfig(**BERT, embedding_size=8)),
    "distilbert": ("DistilBert", lambda: T.DistilBertConfig(vocab_size=VOCAB, dim=16, n_layers=1, n_heads=2, hidden_dim=24, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0, qa_dropout=0.0, max_position_embeddings=32)),
    "deberta_v2": ("DebertaV2", lambda: T.DebertaV2Config(**DEBERTA)),
    "modernbert": ("ModernBert", lambda: T.ModernBertConfig(**D, intermediate_size=24, max_position_embeddings=32, global_attn_every_n_layers=1, local_attention=6, attention_dropout=0.0, mlp_dropout=0.0, classifier_dropout=0.0)),
}

def causal_bart():
    c = T.BartConfig(**BART)
    c.is_decoder, c.is_encoder_decoder = True, False
    return c

def untied(c):
    c.tie_word_embeddings = False
    return c

# What configs can say beyond the cases of `models/`: class, config, what follows the last underscore of the name, LoRA's targets.
BIG = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=32)
QV = ["q_proj", "v_proj"]
BIG_DEBERTA = {**DEBERTA, "num_hidden_layers": 2}
VARIANTS = {
    "stablelm_qk_causal": ("StableLmForCausalLM", lambda: T.StableLmConfig(**BIG, qk_layernorm=True, partial_rotary_factor=0.5), QV),
    "stablelm_qk_parallel_causal": ("StableLmForCausalLM", lambda: T.StableLmConfig(**BIG, qk_layernorm=True, use_parallel_residual=True, use_qkv_bias=True), QV),
    "phi_qk_causal": ("PhiForCausalLM", lambda: T.PhiConfig(**{**BIG, "num_key_value_heads": 4}, qk_layernorm=True, partial_rotary_factor=0.5, resid_pdrop=0.0, embd_pdrop=0.0), QV),
    "phi_qk_grouped_causal": ("PhiForCausalLM", lambda: T.PhiConfig(**BIG, qk_layernorm=True, partial_rotary_factor=0.5, resid_pdrop=0.0, embd_pdrop=0.0), QV),
    "cohere_qk_causal": ("CohereForCausalLM", lambda: T.CohereConfig(**BIG, use_qk_norm=True), QV),
    "deberta_v2_conv_cls": ("DebertaV2ForSequenceClassification", lambda: T.DebertaV2Config(**BIG_DEBERTA, conv_kernel_size=3, conv_act="gelu"), ["query_proj", "value_proj"]),
    "deberta_v2_conv_groups_tok": ("DebertaV2ForTokenClassification", lambda: T.DebertaV2Config(**BIG_DEBERTA, conv_kernel_size=5, conv_act="tanh", conv_groups=2), ["query_proj", "value_proj"]),
    "bart_cls": ("BartForSequenceClassification", lambda: T.BartConfig(**BART), QV),
    "bart_qa": ("BartForQuestionAnswering", lambda: T.BartConfig(**BART), QV),
    "bart_causal": ("BartForCausalLM", causal_bart, QV),
    "bart_body": ("BartModel", lambda: T.BartConfig(**BART), None),
    "t5_cls": ("T5ForSequenceClassification", lambda: T.T5Config(**T5), ["q", "v"]),
    "t5_tok": ("T5ForTokenClassification", lambda: T.T5Config(**T5), ["q", "v"]),
    "t5_qa": ("T5ForQuestionAnswering", lambda: T.T5Config(**T5), ["q", "v"]),
    "t5_body": ("T5EncoderModel", lambda: T.T5Config(**T5), None),
    "mt5_cls": ("MT5ForSequenceClassification", lambda: untied(T.MT5Config(**T5, feed_forward_proj="gated-gelu")), ["q", "v"]),
    "mt5_tok": ("MT5ForTokenClassification", lambda: untied(T.MT5Config(**T5, feed_forward_proj="gated-gelu")), ["q", "v"]),
    "mt5_qa": ("MT5ForQuestionAnswering", lambda: untied(T.MT5Config(**T5, feed_forward_proj="gated-gelu")), ["q", "v"]),
    "mt5_body": ("MT5EncoderModel", lambda: untied(T.MT5Config(**T5, feed_forward_proj="gated-gelu")), None),
    "t5_gated_lm": ("T5ForConditionalGeneration", lambda: untied(T.T5Config(**T5, feed_forward_proj="gated-gelu")), ["q", "v"]),
}
LORA_HEADS = {"llama_qa": QV, "mistral_tok": QV, "gpt2_tok": ["c_attn"]}


def batch_for(kind, ends):
    """`ends`: each text ends in its one end-of-sequence token (id 1), which heads on encoder-decoders look for."""
    g = torch.Generator().manual_seed(7)
    ids = torch.randint(5, VOCAB, (2, LENGTH), generator=g)
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    if ends:
        ids[0, -1] = ids[1, -4] = 1
    ids[1, -3:] = 0
    b = dict(input_ids=ids, attention_mask=mask)
    padding = mask == 0
    if kind == "causal":
        b["labels"] = ids.masked_fill(padding, -100)
        b["labels"][:, :2] = -100
    elif kind == "seq2seq":
        b["labels"] = torch.randint(5, VOCAB, (2, 7), generator=torch.Generator().manual_seed(8))
        b["labels"][1, -2:] = -100
    elif kind == "seqcls":
        b["labels"] = torch.tensor([1, 2])
    elif kind == "tokcls":
        b["labels"] = (ids % 3).masked_fill(padding, -100)
    elif kind == "qa":
        b.update(start_positions=torch.tensor([2, 4]), end_positions=torch.tensor([5, 6]))
    elif kind == "mlm":
        b["labels"] = ids.masked_fill(padding, -100)
        b["labels"][:, ::2] = -100
    return b


def build(name, cls, cfg, kind):
    if kind in ("seqcls", "tokcls"):
        cfg.num_labels = 3
    cfg.pad_token_id = 0
    if getattr(cfg, "eos_token_id", None) is not None:
        cfg.eos_token_id = 1
    if getattr(cfg, "bos_token_id", None) is not None:
        cfg.bos_token_id = 2
    torch.manual_seed(zlib.crc32(name.encode()) % 1000)
    cfg._attn_implementation = "eager"
    model = getattr(T, cls)(cfg)
    # Random, not constant: a norm or bias in the wrong place shows.
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.1)
            elif p.std() < 0.1:
                p.mul_(0.15 / p.std().clamp_min(1e-6))
        if ".norms." in " ".join(n for n, _ in model.named_parameters()) or "qk" in name:
            for n, p in model.named_parameters():
                if n.split(".")[-2].endswith("norm") and p.dim() > 1:   # Cohere's norms have a row for each head
                    p.copy_(1 + torch.randn_like(p) * 0.1)
        body = next((m for m in model.modules() if hasattr(m, "shared") and hasattr(m, "encoder")), None)
        for stack in (getattr(body, "encoder", None), getattr(body, "decoder", None)) if body is not None else ():
            if stack is not None and stack.embed_tokens.weight is not body.shared.weight:
                stack.embed_tokens.weight.copy_(body.shared.weight)
    return model.float().eval()


def logits_of(out):
    if out.get("start_logits") is not None:
        return torch.stack([out.start_logits, out.end_logits], -1)
    return out.logits if out.get("logits") is not None else out.last_hidden_state


def contiguous(d):
    return {k: v.detach().clone().contiguous() for k, v in d.items()}


def greedy(model, kind, batch):
    if kind == "seq2seq":
        return dict(greedy_ids=model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=8, min_new_tokens=8, do_sample=False, num_beams=1))
    if kind != "causal":
        return {}
    ids, mask = torch.zeros_like(batch["input_ids"]), torch.zeros_like(batch["attention_mask"])
    for i, row in enumerate(batch["input_ids"]):    # the same prompts, padded on the left
        n = int(batch["attention_mask"][i].sum())
        ids[i, -n:], mask[i, -n:] = row[:n], 1
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False, num_beams=1, pad_token_id=0)
    return dict(prompt_ids=ids, prompt_mask=mask, greedy_ids=out)


def ends_texts(cls):
    return cls.startswith(("Bart", "T5", "MT5")) and cls.endswith("ForSequenceClassification")


def write_model(name, cls, make, kind):
    path = os.path.join(OUT, "models", name)
    model = build(name, cls, make(), kind)
    model.save_pretrained(path, safe_serialization=True)
    batch = batch_for(kind, ends_texts(cls))
    out = model(**batch)
    g = dict(batch, logits=logits_of(out))
    if out.get("loss") is not None:
        g["loss"] = out.loss.reshape(1)
        out.loss.backward()
        g.update({"grad." + n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    with torch.no_grad():
        try:
            g.update(greedy(model, kind, batch))
        except Exception as e:
            print("   no greedy for", name, repr(e)[:200])
    save_file(contiguous(g), os.path.join(path, "golden.safetensors"))
    json.dump(dict(kind=kind, transformers=T.__version__, cls=cls, parameters=sum(p.numel() for p in model.parameters())), open(os.path.join(path, "meta.json"), "w"), indent=1)


def write_lora(name, cls, kind, targets, steps=4, lr=5e-3):
    import peft as P
    path, base = os.path.join(OUT, "adapters", "lora__" + name), os.path.join(OUT, "models", name)
    torch.manual_seed(1)
    model = getattr(T, cls).from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    head = ["classification_head"] if hasattr(model, "classification_head") else None
    config = P.LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=targets, task_type=TASK[kind], modules_to_save=head)
    config.base_model_name_or_path = name
    torch.manual_seed(1)
    model = P.get_peft_model(model, config).eval()
    trainable, total = model.get_nb_trainable_parameters()

    def keep(part):
        folder = os.path.join(path, part)
        model.save_pretrained(folder, safe_serialization=True)
        if os.path.exists(os.path.join(folder, "README.md")):
            os.remove(os.path.join(folder, "README.md"))
        file = os.path.join(folder, "adapter_config.json")
        c = json.load(open(file))
        c["base_model_name_or_path"] = name
        json.dump(c, open(file, "w"), indent=2, sort_keys=True)

    keep("init")
    batch = batch_for(kind, ends_texts(cls))
    g = dict(batch)
    with torch.no_grad():
        g["logits_init"] = logits_of(model(**batch))
    params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    opt = torch.optim.AdamW([p for _, p in params], lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for step in range(steps):
        loss = model(**batch).loss
        loss.backward()
        if step == 0:
            g.update({"grad." + n: p.grad.clone() for n, p in params if p.grad is not None})
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    g["losses"] = torch.tensor(losses, dtype=torch.float64)
    keep("trained")
    with torch.no_grad():
        g["logits_trained"] = logits_of(model(**batch))
        try:
            g.update(greedy(model, kind, batch))
        except Exception as e:
            print("   no greedy for", name, repr(e)[:200])
        g["logits_merged"] = logits_of(model.merge_and_unload()(**batch))
    save_file(contiguous(g), os.path.join(path, "golden.safetensors"))
    json.dump(dict(base=name, kind=kind, steps=steps, lr=lr, seed=1, trainable=trainable, total=total, merged=True, trainable_names=[n for n, _ in params],
                   peft=P.__version__, transformers=T.__version__), open(os.path.join(path, "meta.json"), "w"), indent=1)


def gguf_types():
    """IQ1_M and what else the package decodes beyond `quantized/gguf/types.*`: random bits under sane scales."""
    import gguf, numpy as np
    folder = os.path.join(OUT, "gguf_extra")
    os.makedirs(folder, exist_ok=True)
    rng, g, info = np.random.default_rng(400), {}, {}
    Q = gguf.GGMLQuantizationType
    for name in ("IQ1_M", "NVFP4", "Q1_0"):
        if not hasattr(Q, name) or Q[name] not in gguf.quants._type_traits:
            print("   gguf does not decode", name)
            continue
        size, bytes_ = gguf.GGML_QUANT_SIZES[Q[name]]
        raw = rng.integers(0, 256, (3, 512 // size, bytes_), dtype=np.uint8)
        if name == "IQ1_M":   # the float16 scale lies in the upper four bits of four 16-bit words at the end
            scale = (0.002 * rng.uniform(0.5, 1.5, raw.shape[:2])).astype("<f2").view("<u2").astype(np.uint16)
            for i in range(4):
                raw[..., 48 + 2 * i + 1] = (raw[..., 48 + 2 * i + 1] & 0x0F) | (((scale >> (4 * i)) & 0xF) << 4).astype(np.uint8)
        raw = raw.reshape(3, -1)
        truth = gguf.quants.dequantize(raw, Q[name])
        print("  ", name, "finite:", bool(np.isfinite(truth).all()))
        g[name + ".raw"], g[name + ".dequant"] = torch.from_numpy(raw.copy()), torch.from_numpy(np.ascontiguousarray(truth, dtype=np.float32))
        info[name] = dict(ggml_type=int(Q[name]), block=size, bytes=bytes_)
    save_file(contiguous(g), os.path.join(folder, "types.safetensors"))
    json.dump(dict(types=info), open(os.path.join(folder, "types.json"), "w"), indent=1)


def gguf_t5(name):
    """A T5 checkpoint as a GGUF file by the gguf package's own names, and what transformers makes of it."""
    import gguf, numpy as np
    folder, base = os.path.join(OUT, "gguf_extra"), os.path.join(OUT, "models", name)
    os.makedirs(folder, exist_ok=True)
    model = T.T5ForConditionalGeneration.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    c, file = model.config, name + ".gguf"
    w = gguf.GGUFWriter(os.path.join(folder, file), "t5")
    w.add_name(name)
    w.add_context_length(512)
    w.add_embedding_length(c.d_model)
    w.add_feed_forward_length(c.d_ff)
    w.add_block_count(c.num_layers)
    if hasattr(w, "add_decoder_block_count"):
        w.add_decoder_block_count(c.num_decoder_layers)
    w.add_head_count(c.num_heads)
    w.add_key_length(c.d_kv)
    w.add_value_length(c.d_kv)
    w.add_layer_norm_eps(c.layer_norm_epsilon)
    w.add_relative_attn_buckets_count(c.relative_attention_num_buckets)
    w.add_layer_norm_rms_eps(c.layer_norm_epsilon)
    w.add_decoder_start_token_id(c.decoder_start_token_id)
    w.add_vocab_size(c.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, c.num_layers)
    for hf, value in model.state_dict().items():
        if hf.endswith("embed_tokens.weight"):
            continue
        stem, end = hf.rsplit(".", 1)
        w.add_tensor(names.get_name(stem) + "." + end, np.ascontiguousarray(value.float().numpy()))
    for write in (w.write_header_to_file, w.write_kv_data_to_file, w.write_tensors_to_file, w.close):
        write()
    batch = batch_for("seq2seq", False)
    g = dict(batch)
    with torch.no_grad():
        g["logits_of_the_checkpoint"] = model(**batch).logits
        loaded = T.T5ForConditionalGeneration.from_pretrained(folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager").eval()
        g["logits"] = loaded(**batch).logits
    print("  ", name, "transformers' reading of the file differs by", float((g["logits"] - g["logits_of_the_checkpoint"]).abs().max()))
    save_file(contiguous(g), os.path.join(folder, name + ".golden.safetensors"))


def main():
    T.logging.set_verbosity_error()
    T.utils.logging.disable_progress_bar()
    jobs = []
    for family, (prefix, make) in FAMILIES.items():
        for short, ending in HEADS.items():
            cls = prefix + ending
            if cls == "Gemma3TextForSequenceClassification" or hasattr(T, cls):
                jobs.append((f"{family}_{short}", cls, make, KINDS[short]))
    jobs += [(name, cls, make, KINDS[name.rsplit("_", 1)[1]]) for name, (cls, make, _) in VARIANTS.items()]
    done, failed = 0, []

    def attempt(name, action):
        nonlocal done
        if ONLY and not any(part in name for part in ONLY):
            return
        try:
            action()
            done += 1
        except Exception:
            failed.append(name)
            print("FAILED", name)
            traceback.print_exc()

    for name, cls, make, kind in jobs:
        attempt(name, lambda: write_model("x_" + name, cls, make, kind))
        targets = VARIANTS[name][2] if name in VARIANTS else LORA_HEADS.get(name)
        if targets:
            attempt("lora__" + name, lambda: write_lora("x_" + name, cls, kind, targets))
    attempt("gguf_types", gguf_types)
    attempt("gguf_t5_gated", lambda: gguf_t5("x_t5_gated_lm"))
    print("DONE", done, "FAILED", len(failed), *failed)


main()
