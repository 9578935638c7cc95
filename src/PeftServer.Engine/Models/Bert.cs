using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>
/// BERT, RoBERTa and ELECTRA without their heads. <see href="https://arxiv.org/abs/1810.04805"/>. RoBERTa's positions begin
/// behind that of padding; ELECTRA's embeddings may be narrower than its layers.
/// </summary>
internal sealed class BertModel : Encoder
{
    public readonly BertEmbeddings embeddings;
    public readonly Linear? embeddings_project;
    public readonly BertEncoder encoder;
    public readonly BertPooler? pooler;
    public readonly HiddenSite invertible_adapters;

    public BertModel(PretrainedConfig config, bool pools)
    {
        if (config.Flag("is_decoder", false))
        {
            throw config.Unsupported("is_decoder", true);
        }

        if (config.Text("position_embedding_type", "absolute") is var kind and not "absolute")
        {
            throw config.Unsupported("position_embedding_type", kind);
        }

        var hidden = Width = config.Int("hidden_size");
        var width = config.ModelType == "electra" ? config.Int("embedding_size", 128) : hidden;
        embeddings = new BertEmbeddings(config, width);
        invertible_adapters = new HiddenSite(width);
        embeddings_project = width == hidden ? null : new Linear(width, hidden, hasBias: true);
        encoder = new BertEncoder(config);
        pooler = pools ? new BertPooler(hidden) : null;
    }

    public override Embedding TokenEmbedding => embeddings.word_embeddings;

    public override int Width { get; }

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = invertible_adapters.Forward(embeddings.Forward(batch), batch); // [n, width]
        x = embeddings_project?.Forward(x, batch) ?? x; // [n, hidden]
        foreach (var layer in encoder.layer)
        {
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, batch));
        }

        return x.MoveToOuterDisposeScope();
    }
}

internal sealed class BertEmbeddings(PretrainedConfig config, int width) : Module
{
    public readonly Embedding word_embeddings = new(config.VocabSize, width);
    public readonly Embedding position_embeddings = new(config.Int("max_position_embeddings", 512), width);
    public readonly Embedding token_type_embeddings = new(config.Int("type_vocab_size", 2), width);
    public readonly LayerNorm LayerNorm = new(width, config.Number("layer_norm_eps", 1e-12));
    private readonly KeptScalar _firstPosition = new((long)(config.ModelType == "roberta" ? config.Int("pad_token_id", 1) + 1 : 0));

    public Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = word_embeddings.Forward(batch.Ids, batch).Plus(token_type_embeddings.Forward(batch.TokenTypes, batch));
        x = x.Plus(position_embeddings.Forward(batch.Positions.add(_firstPosition), batch)); // [n, width]
        return LayerNorm.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class BertEncoder(PretrainedConfig config) : Module
{
    public readonly IReadOnlyList<BertLayer> layer = [.. Enumerable.Range(0, config.Int("num_hidden_layers")).Select(index => new BertLayer(config, index))];
}

internal sealed class BertLayer(PretrainedConfig config, int index) : Module
{
    public readonly BertAttention attention = new(config, index);
    public readonly BertDense intermediate = new(config.Int("hidden_size"), config.Int("intermediate_size"));
    public readonly BertOutput output = new(config.Int("intermediate_size"), config, new ResidualSite(Sublayer.FeedForward, index));
    public readonly HiddenSite reft_layer = new(config.Int("hidden_size"), index);
    private readonly Func<Tensor, Tensor> _act = Activation.Of(config, "hidden_act", "gelu");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = attention.Forward(x, batch); // [n, hidden]
        x = output.Forward(_act(intermediate.dense.Forward(x, batch)), x, batch);
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class BertAttention(PretrainedConfig config, int index) : Module
{
    public readonly BertSelfAttention self = new(config.Int("hidden_size"), config.Int("num_attention_heads"), index);
    public readonly BertOutput output = new(config.Int("hidden_size"), config, new ResidualSite(Sublayer.SelfAttention, index));

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return output.Forward(self.Forward(x, batch), x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class BertSelfAttention(int hidden, int heads, int index) : Module
{
    public readonly Linear query = new(hidden, hidden, hasBias: true);
    public readonly Linear key = new(hidden, hidden, hasBias: true);
    public readonly Linear value = new(hidden, hidden, hasBias: true);
    private readonly AttentionOptions _options = new(1 / Math.Sqrt(hidden / heads), Bidirectional: true);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var q = query.Forward(x, batch).view(-1, heads, hidden / heads); // [n, H, D]
        var k = key.Forward(x, batch).view(-1, heads, hidden / heads);
        var v = value.Forward(x, batch).view(-1, heads, hidden / heads);
        return batch.Attention.Attend(index, q, k, v, _options).reshape(-1, hidden).MoveToOuterDisposeScope(); // [n, hidden]
    }
}

internal sealed class BertDense(int inFeatures, int outFeatures) : Module
{
    public readonly Linear dense = new(inFeatures, outFeatures, hasBias: true);
}

/// <summary>Back to the residual stream, normed behind the sum.</summary>
internal sealed class BertOutput(int inFeatures, PretrainedConfig config, ResidualSite end) : Module
{
    public readonly Linear dense = new(inFeatures, config.Int("hidden_size"), hasBias: true);
    public readonly LayerNorm LayerNorm = new(config.Int("hidden_size"), config.Number("layer_norm_eps", 1e-12));
    public readonly ResidualSite adapters = end;

    public Tensor Forward(Tensor x, Tensor residual, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return adapters.Add(dense.Forward(x, batch), residual, batch, LayerNorm).MoveToOuterDisposeScope();
    }
}

/// <summary>The first token's state through a dense layer and tanh.</summary>
internal sealed class BertPooler(int hidden) : Module
{
    public readonly Linear dense = new(hidden, hidden, hasBias: true);

    public Tensor Forward(Tensor first, ForwardBatch heads)
    {
        using var scope = NewDisposeScope();
        return dense.Forward(first, heads).tanh().MoveToOuterDisposeScope(); // [sequences, hidden]
    }
}
