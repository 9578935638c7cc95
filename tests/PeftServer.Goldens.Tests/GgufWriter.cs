using System.Text;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// Writes a reference model as the GGUF file that llama.cpp's converter makes of it, all in float32: its names, its metadata, and what
/// it changes about tensors.
/// </summary>
internal sealed class GgufWriter(string architecture, PretrainedConfig config, Checkpoint checkpoint)
{
    private readonly List<(string Key, object Value)> _metadata = [("general.architecture", architecture)];
    private readonly List<(string Name, Tensor Values)> _tensors = [];

    private bool IsT5 => architecture is "t5" or "t5encoder";

    private int Heads => IsT5 ? config.Int("num_heads") : config.Has("num_attention_heads") ? config.Int("num_attention_heads") : config.Int("n_head");

    private int KeyValueHeads => architecture == "falcon"
        ? config.Flag("new_decoder_architecture", false) ? config.Int("num_kv_heads") : config.Flag("multi_query", true) ? 1 : Heads
        : config.Int("num_key_value_heads", Heads);

    private int Hidden => IsT5 ? config.Int("d_model") : config.Has("hidden_size") ? config.Int("hidden_size") : config.Int("n_embd");

    public void Write(string path)
    {
        Describe();
        var layout = GgufArchitecture.Of(architecture);
        var layers = Layers;
        foreach (var root in layout.Roots.Keys.Append("output"))
        {
            Add(layout, root);
        }

        for (var layer = 0; layer < layers; layer++)
        {
            foreach (var part in layout.Parts.Keys)
            {
                Add(layout, IsT5 ? $"{part[..3]}.blk.{layer}.{part[4..]}" : $"blk.{layer}.{part}");
            }

            AddExperts($"model.layers.{layer}", $"blk.{layer}");
        }

        Store(path, _metadata, _tensors);
    }

    private void Add(GgufArchitecture layout, string stem)
    {
        foreach (var end in (string[])[".weight", ".bias"])
        {
            if (layout.NameOf($"{stem}{end}") is { } name && Find(name) is { } stored)
            {
                _tensors.Add(($"{stem}{end}", Converted($"{stem}{end}", checkpoint.Tensor(stored)).contiguous()));
            }
        }
    }

    /// <summary>
    /// The checkpoint's name of a tensor: Mixtral's experts stand in a module of another name, and llama.cpp calls the way up of T5 the same
    /// whether it is gated or not.
    /// </summary>
    private string? Find(string name) => checkpoint.Names.FirstOrDefault(stored =>
        stored == name || DecoderBuffers.Rename(stored) == name || (IsT5 && stored == name.Replace("DenseReluDense.wi_1", "DenseReluDense.wi", StringComparison.Ordinal)));

    private int Layers => IsT5 ? config.Int("num_layers") : config.Int("num_hidden_layers", config.Int("n_layer", 0));

    private void AddExperts(string module, string block)
    {
        var count = config.Int("num_local_experts", 0);
        var moe = architecture == "llama" ? $"{module}.block_sparse_moe" : $"{module}.mlp";
        var (gate, up, down) = architecture == "llama" ? ExpertShape.MixtralNames : ExpertShape.QwenNames;
        foreach (var (part, name) in count > 0 ? new[] { ("ffn_gate_exps", gate), ("ffn_up_exps", up), ("ffn_down_exps", down) } : [])
        {
            _tensors.Add(($"{block}.{part}.weight", stack(Enumerable.Range(0, count).Select(expert => checkpoint.Tensor($"{moe}.experts.{expert}.{name}.weight")).ToArray(), 0)));
        }
    }

    private Tensor Converted(string name, Tensor tensor)
    {
        var part = name.Split('.') is ["blk", _, var middle, ..] ? middle : "";
        var rest = tensor.shape[1..];
        var dim = Hidden / Heads;
        switch (architecture)
        {
            case "llama" when part is "attn_q" or "attn_k":
                var heads = part == "attn_q" ? Heads : KeyValueHeads;
                return tensor.view([heads, 2, tensor.shape[0] / heads / 2, .. rest]).transpose(1, 2).reshape(tensor.shape);
            case "gemma" or "gemma2" or "gemma3" when name.EndsWith("norm.weight", StringComparison.Ordinal):
                return tensor.Plus(ones_like(tensor));
            case "gpt2" when part is "attn_qkv" or "attn_output" or "ffn_up" or "ffn_down" && tensor.dim() == 2:
                return tensor.t();
            case "bloom" when part is "attn_qkv":
                return tensor.view([Heads, 3, -1, .. rest]).transpose(0, 1).reshape(tensor.shape);
            case "falcon" when part is "attn_qkv":
                var groups = tensor.view([KeyValueHeads, (Heads / KeyValueHeads) + 2, dim, .. rest]);
                var queries = groups.narrow(1, 0, Heads / KeyValueHeads).reshape([-1, .. rest]);
                return cat([queries, groups.narrow(1, Heads / KeyValueHeads, 1).reshape([-1, .. rest]), groups.narrow(1, (Heads / KeyValueHeads) + 1, 1).reshape([-1, .. rest])], 0);
            default:
                return tensor;
        }
    }

    private void Describe()
    {
        Say("embedding_length", Hidden);
        Say("block_count", Layers);
        Say("context_length", config.Int("max_position_embeddings", 64));
        Say("attention.head_count", Heads);
        if (IsT5)
        {
            DescribeT5();
            return;
        }

        Say("attention.head_count_kv", KeyValueHeads);
        Say("feed_forward_length", config.Int("intermediate_size", config.Int("ffn_hidden_size", 4 * Hidden)));
        Say("attention.layer_norm_rms_epsilon", config.Number("rms_norm_eps", 0));
        Say("attention.layer_norm_epsilon", config.Number("layer_norm_epsilon", config.Number("layer_norm_eps", config.Number("norm_epsilon", 0))));
        Say("attention.key_length", config.Int("head_dim", 0));
        Say("attention.value_length", config.Int("head_dim", 0));
        Say("attention.sliding_window", config.Int("sliding_window", 0));
        Say("attn_logit_softcapping", config.Number("attn_logit_softcapping", 0));
        Say("final_logit_softcapping", config.Number("final_logit_softcapping", 0));
        Say("expert_count", config.Int("num_local_experts", 0));
        Say("expert_used_count", config.Int("num_experts_per_tok", 0));
        Say("expert_feed_forward_length", config.Int("moe_intermediate_size", 0));
        if (architecture == "gemma3")
        {
            _metadata.Add(("gemma3.attention.sliding_window_pattern", config.Texts("layer_types").Select(type => type == "sliding_attention").ToList()));
        }

        var rope = config.Section("rope_parameters");
        rope = rope?.Section("full_attention") ?? rope;
        Say("rope.freq_base", rope?.Number("rope_theta", 10_000) ?? 0);
        if (architecture is "stablelm" or "phi3")
        {
            Say("rope.dimension_count", RotaryEmbedding.TurningDimensions(config, Hidden / Heads, architecture == "phi3" ? 1 : 0.25));
        }
    }

    private void DescribeT5()
    {
        Say("feed_forward_length", config.Int("d_ff"));
        Say("attention.key_length", config.Int("d_kv"));
        Say("attention.value_length", config.Int("d_kv"));
        Say("attention.layer_norm_epsilon", config.Number("layer_norm_epsilon", 1e-6));
        Say("attention.layer_norm_rms_epsilon", config.Number("layer_norm_epsilon", 1e-6));
        Say("attention.relative_buckets_count", config.Int("relative_attention_num_buckets"));
        _metadata.Add(($"{architecture}.decoder_start_token_id", 0));
    }

    private void Say(string key, object value)
    {
        if (value is not (0 or 0.0))
        {
            _metadata.Add(($"{architecture}.{key}", value));
        }
    }

    /// <summary>Writes the file itself: version 3, everything float32.</summary>
    public static void Store(string path, List<(string Key, object Value)> metadata, List<(string Name, Tensor Values)> tensors)
    {
        using var file = new BinaryWriter(File.Create(path));
        file.Write("GGUF"u8);
        file.Write(3u);
        file.Write((long)tensors.Count);
        file.Write((long)metadata.Count);
        foreach (var (key, value) in metadata)
        {
            Text(file, key);
            Value(file, value);
        }

        var offset = 0L;
        foreach (var (name, values) in tensors)
        {
            Text(file, name);
            file.Write((uint)values.dim());
            Array.ForEach(values.shape.Reverse().ToArray(), file.Write);
            file.Write(0u); // F32
            file.Write(offset);
            offset += (values.numel() * 4 + 31) / 32 * 32;
        }

        foreach (var (_, values) in tensors)
        {
            Pad(file);
            file.Write(values.bytes);
        }

        Pad(file);
    }

    private static void Value(BinaryWriter file, object value)
    {
        switch (value)
        {
            case string text:
                file.Write(8u);
                Text(file, text);
                break;
            case int number:
                file.Write(4u);
                file.Write((uint)number);
                break;
            case bool flag:
                file.Write(7u);
                file.Write(flag);
                break;
            case List<bool> flags:
                List(file, 7, flags, file.Write);
                break;
            case List<int> numbers:
                List(file, 5, numbers, file.Write);
                break;
            case List<float> numbers:
                List(file, 6, numbers, file.Write);
                break;
            case List<string> texts:
                List(file, 8, texts, text => Text(file, text));
                break;
            default:
                file.Write(6u);
                file.Write((float)(double)value);
                break;
        }
    }

    private static void List<T>(BinaryWriter file, uint type, List<T> values, Action<T> write)
    {
        file.Write(9u);
        file.Write(type);
        file.Write((long)values.Count);
        values.ForEach(write);
    }

    private static void Pad(BinaryWriter file)
    {
        while (file.BaseStream.Position % 32 != 0)
        {
            file.Write((byte)0);
        }
    }

    private static void Text(BinaryWriter file, string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        file.Write((long)bytes.Length);
        file.Write(bytes);
    }
}
