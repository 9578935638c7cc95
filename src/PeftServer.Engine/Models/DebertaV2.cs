using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>
/// DeBERTa v2 and v3 without their heads: content attends to content, content to positions and positions to content, by scores of
/// their own. <see href="https://arxiv.org/abs/2006.03654"/>.
/// </summary>
internal sealed class DebertaV2Model : Encoder
{
    public readonly DebertaV2Embeddings embeddings;
    public readonly DebertaV2Encoder encoder;
    public readonly HiddenSite invertible_adapters;

    public DebertaV2Model(PretrainedConfig config)
    {
        Width = config.Int("hidden_size");
        embeddings = new DebertaV2Embeddings(config);
        encoder = new DebertaV2Encoder(config);
        invertible_adapters = new HiddenSite(Width);
    }

    public override Embedding TokenEmbedding => embeddings.word_embeddings;

    public override int Width { get; }

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = invertible_adapters.Forward(embeddings.Forward(batch), batch);
        return encoder.Forward(x, batch).MoveToOuterDisposeScope(); // [n, width]
    }
}

internal sealed class DebertaV2Embeddings : Module
{
    public readonly Embedding word_embeddings;
    public readonly Embedding? position_embeddings;
    public readonly Embedding? token_type_embeddings;
    public readonly Linear? embed_proj;
    public readonly LayerNorm LayerNorm;

    public DebertaV2Embeddings(PretrainedConfig config)
    {
        var hidden = config.Int("hidden_size");
        var (width, types) = (config.Int("embedding_size", hidden), config.Int("type_vocab_size", 0));
        word_embeddings = new Embedding(config.VocabSize, width);
        position_embeddings = config.Flag("position_biased_input", true) ? new Embedding(config.Int("max_position_embeddings", 512), width) : null;
        token_type_embeddings = types > 0 ? new Embedding(types, width) : null;
        embed_proj = width == hidden ? null : new Linear(width, hidden);
        LayerNorm = new LayerNorm(hidden, config.Number("layer_norm_eps", 1e-7));
    }

    public Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = word_embeddings.Forward(batch.Ids, batch); // [n, width]
        x = position_embeddings is null ? x : x.Plus(position_embeddings.Forward(batch.Positions, batch));
        x = token_type_embeddings is null ? x : x.Plus(token_type_embeddings.Forward(batch.TokenTypes, batch));
        return LayerNorm.Forward(embed_proj?.Forward(x, batch) ?? x, batch).MoveToOuterDisposeScope(); // [n, hidden]
    }
}

internal sealed class DebertaV2Encoder : Module
{
    public readonly IReadOnlyList<DebertaV2Layer> layer;
    public readonly Embedding? rel_embeddings;
    public readonly LayerNorm? LayerNorm;
    public readonly DebertaV2ConvolutionLayer? conv;

    public DebertaV2Encoder(PretrainedConfig config)
    {
        var shape = DebertaV2Shape.Read(config);
        layer = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new DebertaV2Layer(config, shape, index))];
        rel_embeddings = shape.IsRelative ? new Embedding(2 * shape.Span, shape.Hidden) : null;
        var norms = config.Text("norm_rel_ebd", "none").Split('|').Any(part => part.Trim() == "layer_norm");
        conv = config.Int("conv_kernel_size", 0) > 0 ? new DebertaV2ConvolutionLayer(config) : null;
        LayerNorm = shape.IsRelative && norms ? new LayerNorm(shape.Hidden, config.Number("layer_norm_eps", 1e-7)) : null;
    }

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        using var rows = RowsFor(batch);
        Tensor? relative = null; // [2·span, hidden]
        if (rel_embeddings is not null)
        {
            relative = rel_embeddings.Forward(tensor(Enumerable.Range(0, rel_embeddings.Count).Select(row => (long)row).ToArray(), device: x.device), rows);
            relative = GradientCheckpoints.Cut(LayerNorm?.Forward(relative, rows) ?? relative);
        }

        x = GradientCheckpoints.Cut(x); // the convolution reads it too
        for (var i = 0; i < layer.Count; i++)
        {
            var one = layer[i];
            var y = GradientCheckpoints.Layer(x, batch, h => one.Forward(h, relative, rows, batch), relative, rows); // [n, hidden]
            x = i == 0 && conv is not null ? conv.Forward(x, y, batch) : y;
        }

        return x.MoveToOuterDisposeScope();
    }

    /// <summary>The table of positions goes through the same projections as tokens do, so it is under the adapters of the batch.</summary>
    private ForwardBatch RowsFor(ForwardBatch batch)
    {
        if (batch.Runs.Count > 1 && Modules().OfType<Site>().Any(site => site.IsAdapted))
        {
            throw new NotSupportedException("DeBERTa's positions go through its adapters: sequences with different adapters cannot share a batch.");
        }

        return ForwardBatch.Heads([new AdapterRun(batch.Runs[0].Adapters, 0, rel_embeddings?.Count ?? 0)], batch.Ids.device, dropout: batch.Dropout);
    }
}

/// <summary>
/// What DeBERTa's layers need to know of config.json: distances fall into <c>Span</c> rows to each side, of which <c>Buckets</c> (0: every
/// distance by itself) reach up to <c>Farthest</c>.
/// </summary>
internal sealed record DebertaV2Shape(
    int Hidden, int Heads, int HeadDim, bool IsRelative, int Span, int Buckets, int Farthest, bool ContentToPosition, bool PositionToContent, bool SharesProjections)
{
    public double Scale => 1 / Math.Sqrt(HeadDim * (1 + (ContentToPosition ? 1 : 0) + (PositionToContent ? 1 : 0)));

    public static DebertaV2Shape Read(PretrainedConfig config)
    {
        var (hidden, heads) = (config.Int("hidden_size"), config.Int("num_attention_heads"));
        var (buckets, farthest) = (config.Int("position_buckets", -1), config.Int("max_relative_positions", -1));
        farthest = farthest < 1 ? config.Int("max_position_embeddings", 512) : farthest;
        var relative = config.Flag("relative_attention", false);
        var types = config.TextsOrParts("pos_att_type", '|');
        if (types.FirstOrDefault(type => type is not "c2p" and not "p2c") is { } other)
        {
            throw config.Unsupported("pos_att_type", other);
        }

        return new DebertaV2Shape(
            hidden, heads, config.Int("attention_head_size", hidden / heads), relative, buckets > 0 ? buckets : farthest, Math.Max(0, buckets), farthest,
            types.Contains("c2p"), types.Contains("p2c"), config.Flag("share_att_key", false));
    }
}

internal sealed class DebertaV2Layer(PretrainedConfig config, DebertaV2Shape shape, int index) : Module
{
    public readonly DebertaV2Attention attention = new(config, shape, index);
    public readonly BertDense intermediate = new(shape.Hidden, config.Int("intermediate_size"));
    public readonly BertOutput output = new(config.Int("intermediate_size"), config, new ResidualSite(Sublayer.FeedForward, index));
    public readonly HiddenSite reft_layer = new(shape.Hidden, index);
    private readonly Func<Tensor, Tensor> _act = Activation.Of(config, "hidden_act", "gelu");

    public Tensor Forward(Tensor x, Tensor? relative, ForwardBatch rows, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = attention.output.Forward(attention.self.Forward(x, relative, rows, batch), x, batch); // [n, hidden]
        x = output.Forward(_act(intermediate.dense.Forward(x, batch)), x, batch);
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class DebertaV2Attention(PretrainedConfig config, DebertaV2Shape shape, int index) : Module
{
    public readonly DisentangledSelfAttention self = new(shape, index);
    public readonly BertOutput output = new(shape.Heads * shape.HeadDim, config, new ResidualSite(Sublayer.SelfAttention, index));
}

internal sealed class DisentangledSelfAttention : Module
{
    public readonly Linear query_proj;
    public readonly Linear key_proj;
    public readonly Linear value_proj;
    public readonly Linear? pos_key_proj;
    public readonly Linear? pos_query_proj;
    private readonly DebertaV2Shape _shape;
    private readonly int _index;

    public DisentangledSelfAttention(DebertaV2Shape shape, int index)
    {
        (_shape, _index) = (shape, index);
        Linear Project() => new(shape.Hidden, shape.Heads * shape.HeadDim, hasBias: true);
        var own = shape is { IsRelative: true, SharesProjections: false };
        (query_proj, key_proj, value_proj) = (Project(), Project(), Project());
        pos_key_proj = own && shape.ContentToPosition ? Project() : null;
        pos_query_proj = own && shape.PositionToContent ? Project() : null;
    }

    /// <summary>x [n, hidden]; relative [2·span, hidden], a row for each distance, which <paramref name="rows"/> are the batch of.</summary>
    public Tensor Forward(Tensor x, Tensor? relative, ForwardBatch rows, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var (q, k, v) = (Heads(query_proj.Forward(x, batch)), Heads(key_proj.Forward(x, batch)), Heads(value_proj.Forward(x, batch)));
        var keys = relative is not null && _shape.ContentToPosition ? Heads((pos_key_proj ?? key_proj).Forward(relative, rows)) : null; // [2·span, H, D]
        var queries = relative is not null && _shape.PositionToContent ? Heads((pos_query_proj ?? query_proj).Forward(relative, rows)) : null;
        var bias = keys is null && queries is null ? null : new DisentangledBias(_shape, keys, queries);
        var y = batch.Attention.Attend(_index, q, k, v, new AttentionOptions(_shape.Scale, Bidirectional: true, Bias: bias));
        return y.reshape(-1, _shape.Heads * _shape.HeadDim).MoveToOuterDisposeScope(); // [n, H·D]
    }

    private Tensor Heads(Tensor x) => x.view(-1, _shape.Heads, _shape.HeadDim);
}

/// <summary>Scores of a sequence from its first token's state through a dense layer.</summary>
internal sealed class DebertaV2ForSequenceClassification : EncoderWithHead
{
    public readonly DebertaV2Pooler pooler;
    public readonly Linear classifier;

    public DebertaV2ForSequenceClassification(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.Sequence) =>
        (pooler, classifier) = (new DebertaV2Pooler(config), new Linear(config.Int("pooler_hidden_size", HiddenSize), config.LabelCount, hasBias: true));

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        using var heads = batch.PerSequence();
        var pooled = pooler.Forward(Firsts(Body.Forward(batch), batch), heads); // [sequences, hidden]
        return classifier.Forward(pooled, heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

internal sealed class DebertaV2Pooler(PretrainedConfig config) : Module
{
    public readonly Linear dense = new(config.Int("pooler_hidden_size", config.Int("hidden_size")), config.Int("pooler_hidden_size", config.Int("hidden_size")), hasBias: true);
    private readonly Func<Tensor, Tensor> _act = Activation.Of(config, "pooler_hidden_act", "gelu");

    public Tensor Forward(Tensor first, ForwardBatch heads)
    {
        using var scope = NewDisposeScope();
        return _act(dense.Forward(first, heads)).MoveToOuterDisposeScope();
    }
}
