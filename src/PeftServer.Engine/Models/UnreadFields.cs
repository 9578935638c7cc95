using System.Text.Json.Nodes;

namespace PeftServer.Engine.Models;

/// <summary>
/// Which fields of a config may go unread. A model is built by reading config.json field by field; one that nobody read although its
/// name speaks of the computation is a difference between this model and the one that was trained.
/// </summary>
internal static class UnreadFields
{
    /// <summary>Parts of the names of fields that say how something is computed.</summary>
    private static readonly string[] Telling =
    [
        "rope", "rotary", "theta", "scal", "multiplier", "window", "chunk", "cap", "norm", "bias", "act", "alibi", "residual", "parallel", "expert", "moe", "router",
        "head", "layer", "position", "embed", "attn", "attention", "query", "key", "value", "mlp", "ffn", "pool", "conv", "factor", "eps", "group", "hidden", "intermediate",
        "quantization", "sparse", "block", "rank", "ssm", "mamba", "state", "loop", "mixer", "gate", "mtp", "vision", "audio", "text_config",
    ];

    /// <summary>Names that say nothing about what a forward pass computes, or repeat what another field says.</summary>
    private static readonly HashSet<string> Harmless =
    [
        "tie_word_embeddings", "tie_encoder_decoder", "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "pretraining_tp",
        "gradient_checkpointing", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_experts_implementation",
        "use_flash_attention", "use_flash_attn", "cache_implementation", "router_aux_loss_coef", "router_z_loss_coef", "chunk_size_feed_forward",
        "cross_attention_hidden_size", "reorder_and_upcast_attn", "attention_softmax_in_fp32", "masked_softmax_fusion", "slow_but_exact", "sparse_prediction",
        "sparse_pred_ignore_index", "deterministic_flash_attn", "reference_compile", "repad_logits_with_grad", "is_gated_act", "num_hidden_layers",
        "offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "num_kv_heads", "original_max_position_embeddings", "dense_act_fn", "pooler_hidden_size",
        "pooler_hidden_act", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
        "classifier_pooling", "classifier_bias", "classifier_activation", "decoder_bias", "summary_activation", "summary_last_dropout",
        "keys_to_ignore_at_inference", "sinusoidal_pos_embds", "use_return_dict", "normalize_embedding", "mlm_mask_token_id", "rope_type", "type",
        "relu_dropout",
    ];

    /// <summary>Whether the model may ignore the field.</summary>
    public static bool MayIgnore(string name, JsonNode? value, bool isNested) =>
        SaysNothing(value) || Harmless.Contains(name) || IsOfTraining(name) || (!isNested && !Telling.Any(part => name.Contains(part, StringComparison.OrdinalIgnoreCase)));

    // Dropout of the base is off, as PEFT's users have it: adapters bring their own.
    private static bool IsOfTraining(string name) =>
        name.Contains("dropout", StringComparison.Ordinal) || name.Contains("drop_rate", StringComparison.Ordinal) || name.EndsWith("_pdrop", StringComparison.Ordinal)
        || name.EndsWith("layerdrop", StringComparison.Ordinal) || name.StartsWith("init", StringComparison.Ordinal) || name.StartsWith("output_", StringComparison.Ordinal)
        || name.StartsWith("summary_", StringComparison.Ordinal) || name.EndsWith("_token_id", StringComparison.Ordinal) || name.EndsWith("_dtype", StringComparison.Ordinal);

    private static bool SaysNothing(JsonNode? value) => value switch
    {
        null => true,
        JsonArray list => list.Count == 0,
        JsonObject fields => fields.Count == 0,
        JsonValue one when one.TryGetValue<bool>(out var flag) => !flag,
        JsonValue one when one.TryGetValue<string>(out var text) => text.Length == 0,
        JsonValue one when one.TryGetValue<double>(out var number) => number == 0,
        _ => false,
    };
}
