using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>
/// ModernBERT: rotary positions, norms before each part, layers that see a window between layers that see everything.
/// <see href="https://arxiv.org/abs/2412.13663"/>.
/// </summary>
internal sealed class ModernBertModel : Encoder
{
    public readonly ModernBertEmbeddings embeddings;
    public readonly IReadOnlyList<ModernBertLayer> layers;
    public readonly LayerNorm final_norm;
    private readonly RotaryEmbedding _rotary;
    private readonly RotaryEmbedding _localRotary;

    public ModernBertModel(PretrainedConfig config)
    {
        Width = config.Int("hidden_size");
        var headDim = Width / config.Int("num_attention_heads");
        var (types, every) = (config.Texts("layer_types"), config.Int("global_attn_every_n_layers", 3));
        _ = config.Has("local_attention"); // says nothing where no layer slides
        bool Slides(int index) => types.Count > 0 ? types[index] == "sliding_attention" : index % every != 0;
        embeddings = new ModernBertEmbeddings(config);
        layers = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new ModernBertLayer(config, index, Slides(index)))];
        final_norm = ModernBertNorm.Of(config);
        _rotary = new RotaryEmbedding(config, headDim, "full_attention", "global_rope_theta", 160_000);
        _localRotary = new RotaryEmbedding(config, headDim, "sliding_attention", "local_rope_theta");
    }

    public override Embedding TokenEmbedding => embeddings.tok_embeddings;

    public override int Width { get; }

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = embeddings.norm.Forward(embeddings.tok_embeddings.Forward(batch.Ids, batch), batch); // [n, width]
        var (everywhere, near) = (_rotary.At(batch, x.dtype), _localRotary.At(batch, x.dtype));
        foreach (var layer in layers)
        {
            var angle = layer.Slides ? near : everywhere;
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, angle, batch), angle.Cos, angle.Sin);
        }

        return final_norm.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal static class ModernBertNorm
{
    public static LayerNorm Of(PretrainedConfig config) => new(config.Int("hidden_size"), config.Number("norm_eps", 1e-5), config.Flag("norm_bias", false));
}

internal sealed class ModernBertEmbeddings(PretrainedConfig config) : Module
{
    public readonly Embedding tok_embeddings = new(config.VocabSize, config.Int("hidden_size"));
    public readonly LayerNorm norm = ModernBertNorm.Of(config);
}

internal sealed class ModernBertLayer(PretrainedConfig config, int index, bool slides) : Module
{
    public readonly LayerNorm? attn_norm = index == 0 ? null : ModernBertNorm.Of(config); // the embedding is normed already
    public readonly ModernBertAttention attn = new(config, index, slides);
    public readonly LayerNorm mlp_norm = ModernBertNorm.Of(config);
    public readonly ModernBertMlp mlp = new(config);

    public bool Slides { get; } = slides;

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = x.Plus(attn.Forward(attn_norm?.Forward(x, batch) ?? x, angle, batch)); // [n, width]
        return x.Plus(mlp.Forward(mlp_norm.Forward(x, batch), batch)).MoveToOuterDisposeScope();
    }
}

internal sealed class ModernBertAttention : Module
{
    public readonly Linear Wqkv;
    public readonly Linear Wo;
    private readonly int _heads;
    private readonly int _width;
    private readonly int _index;
    private readonly AttentionOptions _options;

    public ModernBertAttention(PretrainedConfig config, int index, bool slides)
    {
        (_index, _width, _heads) = (index, config.Int("hidden_size"), config.Int("num_attention_heads"));
        var bias = config.Flag("attention_bias", false);
        (Wqkv, Wo) = (new Linear(_width, 3 * _width, bias), new Linear(_width, _width, bias));

        // local_attention counts both sides; a window counts the token itself and one side.
        _options = new AttentionOptions(1 / Math.Sqrt(_width / _heads), slides ? (config.Int("local_attention", 128) / 2) + 1 : null, Bidirectional: true);
    }

    public Tensor Forward(Tensor x, (Tensor Cos, Tensor Sin) angle, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var parts = Wqkv.Forward(x, batch).view(-1, 3, _heads, _width / _heads); // [n, 3, H, D]
        var q = RotaryEmbedding.Rotate(parts.select(1, 0), angle);
        var k = RotaryEmbedding.Rotate(parts.select(1, 1), angle);
        var y = batch.Attention.Attend(_index, q, k, parts.select(1, 2), _options);
        return Wo.Forward(y.reshape(-1, _width), batch).MoveToOuterDisposeScope(); // [n, width]
    }
}

internal sealed class ModernBertMlp(PretrainedConfig config) : Module
{
    public readonly Linear Wi = new(config.Int("hidden_size"), 2 * config.Int("intermediate_size"), config.Flag("mlp_bias", false));
    public readonly Linear Wo = new(config.Int("intermediate_size"), config.Int("hidden_size"), config.Flag("mlp_bias", false));
    private readonly Func<Tensor, Tensor> _act = Activation.Of(config, "hidden_activation", "gelu");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var halves = Wi.Forward(x, batch).chunk(2, -1); // [n, intermediate]
        return Wo.Forward(_act(halves[0]).mul(halves[1]), batch).MoveToOuterDisposeScope();
    }
}

/// <summary>A dense layer, an activation and a norm, under every head.</summary>
internal sealed class ModernBertPredictionHead(PretrainedConfig config) : Module
{
    public readonly Linear dense = new(config.Int("hidden_size"), config.Int("hidden_size"), config.Flag("classifier_bias", false));
    public readonly LayerNorm norm = ModernBertNorm.Of(config);
    private readonly Func<Tensor, Tensor> _act = Activation.Of(config, "classifier_activation", "gelu");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return norm.Forward(_act(dense.Forward(x, batch)), batch).MoveToOuterDisposeScope();
    }
}

/// <summary>Scores of sequences (from the first token or the mean of all), of tokens, or of answers' ends.</summary>
internal sealed class ModernBertForClassification : EncoderWithHead
{
    public readonly ModernBertPredictionHead head;
    public readonly Linear classifier;
    private readonly bool _means;

    public ModernBertForClassification(PretrainedConfig config, Encoder body, PredictionKind kind)
        : base(config, body, kind)
    {
        head = new ModernBertPredictionHead(config);
        classifier = new Linear(HiddenSize, kind is PredictionKind.Span ? 2 : config.LabelCount, hasBias: true);
        _means = config.Text("classifier_pooling", "cls") switch
        {
            "cls" => false,
            "mean" => true,
            var other => throw config.Unsupported("classifier_pooling", other),
        };
    }

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var hidden = Body.Forward(batch); // [n, width]
        if (Kind is not PredictionKind.Sequence)
        {
            return classifier.Forward(head.Forward(hidden, batch), batch).MoveToOuterDisposeScope(); // [n, labels]
        }

        using var heads = batch.PerSequence();
        var pooled = _means ? Pooling.Mean(hidden, batch) : Firsts(hidden, batch); // [sequences, width]
        return classifier.Forward(head.Forward(pooled, heads), heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

internal sealed class ModernBertForMaskedLM : EncoderWithHead
{
    public readonly ModernBertPredictionHead head;
    public readonly Linear decoder;

    public ModernBertForMaskedLM(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.MaskedToken)
    {
        head = new ModernBertPredictionHead(config);
        decoder = new Linear(HiddenSize, config.VocabSize, config.Flag("decoder_bias", true), body.TokenEmbedding.weight);
    }

    public override string OutputHead => nameof(decoder);

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return decoder.Forward(head.Forward(Body.Forward(batch), batch), batch).MoveToOuterDisposeScope(); // [n, vocabulary]
    }
}
