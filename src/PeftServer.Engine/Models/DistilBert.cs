using PeftServer.Engine.Native;

namespace PeftServer.Engine.Models;

/// <summary>DistilBERT: BERT of half the depth, without segments and pooler. <see href="https://arxiv.org/abs/1910.01108"/>.</summary>
internal sealed class DistilBertModel(PretrainedConfig config) : Encoder
{
    public readonly DistilBertEmbeddings embeddings = new(config);
    public readonly DistilBertTransformer transformer = new(config);
    public readonly HiddenSite invertible_adapters = new(config.Int("dim", 768));

    public override Embedding TokenEmbedding => embeddings.word_embeddings;

    public override int Width => config.Int("dim", 768);

    public override Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = invertible_adapters.Forward(embeddings.Forward(batch), batch); // [n, width]
        foreach (var layer in transformer.layer)
        {
            x = GradientCheckpoints.Layer(x, batch, h => layer.Forward(h, batch));
        }

        return x.MoveToOuterDisposeScope();
    }
}

internal sealed class DistilBertEmbeddings(PretrainedConfig config) : Module
{
    public readonly Embedding word_embeddings = new(config.VocabSize, config.Int("dim", 768));
    public readonly Embedding position_embeddings = new(config.Int("max_position_embeddings", 512), config.Int("dim", 768));
    public readonly LayerNorm LayerNorm = new(config.Int("dim", 768), 1e-12);

    public Tensor Forward(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = word_embeddings.Forward(batch.Ids, batch).Plus(position_embeddings.Forward(batch.Positions, batch)); // [n, width]
        return LayerNorm.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class DistilBertTransformer(PretrainedConfig config) : Module
{
    public readonly IReadOnlyList<DistilBertLayer> layer = [.. Enumerable.Range(0, config.Int("n_layers", 6)).Select(index => new DistilBertLayer(config, index))];
}

internal sealed class DistilBertLayer(PretrainedConfig config, int index) : Module
{
    public readonly DistilBertAttention attention = new(config.Int("dim", 768), config.Int("n_heads", 12), index);
    public readonly LayerNorm sa_layer_norm = new(config.Int("dim", 768), 1e-12);
    public readonly DistilBertFeedForward ffn = new(config);
    public readonly LayerNorm output_layer_norm = new(config.Int("dim", 768), 1e-12);
    public readonly ResidualSite attention_adapters = new(Sublayer.SelfAttention, index);
    public readonly ResidualSite output_adapters = new(Sublayer.FeedForward, index);
    public readonly HiddenSite reft_layer = new(config.Int("dim", 768), index);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = attention_adapters.Add(attention.Forward(x, batch), x, batch, sa_layer_norm); // [n, width]
        x = output_adapters.Add(ffn.Forward(x, batch), x, batch, output_layer_norm);
        return reft_layer.Forward(x, batch).MoveToOuterDisposeScope();
    }
}

internal sealed class DistilBertAttention(int width, int heads, int index) : Module
{
    public readonly Linear q_lin = new(width, width, hasBias: true);
    public readonly Linear k_lin = new(width, width, hasBias: true);
    public readonly Linear v_lin = new(width, width, hasBias: true);
    public readonly Linear out_lin = new(width, width, hasBias: true);
    private readonly AttentionOptions _options = new(1 / Math.Sqrt(width / heads), Bidirectional: true);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var q = q_lin.Forward(x, batch).view(-1, heads, width / heads); // [n, H, D]
        var k = k_lin.Forward(x, batch).view(-1, heads, width / heads);
        var v = v_lin.Forward(x, batch).view(-1, heads, width / heads);
        return out_lin.Forward(batch.Attention.Attend(index, q, k, v, _options).reshape(-1, width), batch).MoveToOuterDisposeScope();
    }
}

internal sealed class DistilBertFeedForward(PretrainedConfig config) : Module
{
    public readonly Linear lin1 = new(config.Int("dim", 768), config.Int("hidden_dim", 3072), hasBias: true);
    public readonly Linear lin2 = new(config.Int("hidden_dim", 3072), config.Int("dim", 768), hasBias: true);
    private readonly Func<Tensor, Tensor> _act = Activation.Of(config, "activation", "gelu");

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return lin2.Forward(_act(lin1.Forward(x, batch)), batch).MoveToOuterDisposeScope(); // [n, width]
    }
}

/// <summary>The first token's state through a dense layer and ReLU.</summary>
internal sealed class DistilBertForSequenceClassification : EncoderWithHead
{
    public readonly Linear pre_classifier;
    public readonly Linear classifier;

    public DistilBertForSequenceClassification(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.Sequence) =>
        (pre_classifier, classifier) = (new Linear(HiddenSize, HiddenSize, hasBias: true), new Linear(HiddenSize, config.LabelCount, hasBias: true));

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        using var heads = batch.PerSequence();
        var first = F.relu(pre_classifier.Forward(Firsts(Body.Forward(batch), batch), heads)); // [sequences, width]
        return classifier.Forward(first, heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

/// <summary>Scores of the vocabulary for every token, from the table of words.</summary>
internal sealed class DistilBertForMaskedLM : EncoderWithHead
{
    public readonly Linear vocab_transform;
    public readonly LayerNorm vocab_layer_norm;
    public readonly Linear vocab_projector;
    private readonly Func<Tensor, Tensor> _act;

    public DistilBertForMaskedLM(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.MaskedToken)
    {
        vocab_transform = new Linear(HiddenSize, HiddenSize, hasBias: true);
        vocab_layer_norm = new LayerNorm(HiddenSize, 1e-12);
        vocab_projector = new Linear(HiddenSize, config.VocabSize, hasBias: true, body.TokenEmbedding.weight);
        _act = Activation.Of(config, "activation", "gelu");
    }

    public override string OutputHead => nameof(vocab_projector);

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = vocab_layer_norm.Forward(_act(vocab_transform.Forward(Body.Forward(batch), batch)), batch);
        return vocab_projector.Forward(x, batch).MoveToOuterDisposeScope(); // [n, vocabulary]
    }
}
