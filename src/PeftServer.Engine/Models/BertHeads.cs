using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>Scores of a sequence from the pooled state of its first token.</summary>
internal sealed class BertForSequenceClassification : EncoderWithHead
{
    public readonly Linear classifier;
    private readonly BertPooler _pooler;

    public BertForSequenceClassification(PretrainedConfig config, BertModel body)
        : base(config, body, PredictionKind.Sequence) => (_pooler, classifier) = (body.pooler!, new Linear(HiddenSize, config.LabelCount, hasBias: true));

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        using var heads = batch.PerSequence();
        var first = Firsts(Body.Forward(batch), batch);
        return classifier.Forward(_pooler.Forward(first, heads), heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

/// <summary>RoBERTa's and ELECTRA's head: a dense layer (tanh, or gelu) and a projection on the first token.</summary>
internal sealed class RobertaForSequenceClassification : EncoderWithHead
{
    public readonly DenseClassificationHead classifier;

    public RobertaForSequenceClassification(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.Sequence) => classifier = new DenseClassificationHead(HiddenSize, config.LabelCount);

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        using var heads = batch.PerSequence();
        var inner = classifier.dense.Forward(Firsts(Body.Forward(batch), batch), heads);
        inner = Config.ModelType == "electra" ? F.gelu(inner) : inner.tanh();
        return classifier.out_proj.Forward(inner, heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

internal sealed class DenseClassificationHead(int hidden, int labels) : Module
{
    public readonly Linear dense = new(hidden, hidden, hasBias: true);
    public readonly Linear out_proj = new(hidden, labels, hasBias: true);
}

/// <summary>The masked language model of BERT and DeBERTa; its decoder shares the table of words.</summary>
internal sealed class BertForMaskedLM : EncoderWithHead
{
    public readonly BertPredictionModule cls;

    public BertForMaskedLM(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.MaskedToken) => cls = new BertPredictionModule(config, body.TokenEmbedding);

    public override string OutputHead => "cls.predictions.decoder";

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return cls.predictions.Forward(Body.Forward(batch), batch).MoveToOuterDisposeScope(); // [n, vocabulary]
    }

    protected override bool Ignores(string name) =>
        base.Ignores(name) || name == "cls.predictions.decoder.bias" || name.StartsWith("cls.seq_relationship.", StringComparison.Ordinal)
        || name.StartsWith("bert.pooler.", StringComparison.Ordinal);
}

internal sealed class BertPredictionModule(PretrainedConfig config, Embedding words) : Module
{
    public readonly BertPredictions predictions = new(config, words);
}

internal sealed class BertPredictions : Module
{
    public readonly Weight bias;
    public readonly BertOutputTransform transform;
    public readonly Linear decoder;
    private readonly Func<Tensor, Tensor> _act;

    public BertPredictions(PretrainedConfig config, Embedding words)
    {
        bias = new Weight(config.VocabSize);
        transform = new BertOutputTransform(config);
        decoder = new Linear(config.Int("hidden_size"), config.VocabSize, tied: words.weight);
        _act = Activation.Of(config, "hidden_act", "gelu");
    }

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = transform.LayerNorm.Forward(_act(transform.dense.Forward(x, batch)), batch);
        return decoder.Forward(x, batch).Plus(bias.Value).MoveToOuterDisposeScope();
    }
}

internal sealed class BertOutputTransform(PretrainedConfig config) : Module
{
    public readonly Linear dense = new(config.Int("hidden_size"), config.Int("hidden_size"), hasBias: true);
    public readonly LayerNorm LayerNorm = new(config.Int("hidden_size"), config.Number("layer_norm_eps", 1e-12));
}

/// <summary>RoBERTa's masked language model.</summary>
internal sealed class RobertaForMaskedLM : EncoderWithHead
{
    public readonly RobertaPredictions lm_head;

    public RobertaForMaskedLM(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.MaskedToken) => lm_head = new RobertaPredictions(config, body.TokenEmbedding);

    public override string OutputHead => "lm_head.decoder";

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return lm_head.Forward(Body.Forward(batch), batch).MoveToOuterDisposeScope(); // [n, vocabulary]
    }

    // The bias is saved under either name or both.
    protected override bool Ignores(string name) =>
        base.Ignores(name) || name == "lm_head.decoder.bias" || name.StartsWith("roberta.pooler.", StringComparison.Ordinal);
}

internal sealed class RobertaPredictions(PretrainedConfig config, Embedding words) : Module
{
    public readonly Linear dense = new(words.Width, words.Width, hasBias: true);
    public readonly LayerNorm layer_norm = new(words.Width, config.Number("layer_norm_eps", 1e-12));
    public readonly Weight bias = new(config.VocabSize);
    public readonly Linear decoder = new(words.Width, config.VocabSize, tied: words.weight);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        x = layer_norm.Forward(F.gelu(dense.Forward(x, batch)), batch);
        return decoder.Forward(x, batch).Plus(bias.Value).MoveToOuterDisposeScope();
    }
}

/// <summary>ELECTRA's generator: a masked language model.</summary>
internal sealed class ElectraForMaskedLM : EncoderWithHead
{
    public readonly ElectraPredictions generator_predictions;
    public readonly Linear generator_lm_head;

    public ElectraForMaskedLM(PretrainedConfig config, Encoder body)
        : base(config, body, PredictionKind.MaskedToken)
    {
        generator_predictions = new ElectraPredictions(config, body);
        generator_lm_head = new Linear(body.TokenEmbedding.Width, config.VocabSize, hasBias: true, body.TokenEmbedding.weight);
    }

    public override string OutputHead => nameof(generator_lm_head);

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var x = generator_predictions.Forward(Body.Forward(batch), batch); // [n, embedding]
        return generator_lm_head.Forward(x, batch).MoveToOuterDisposeScope(); // [n, vocabulary]
    }
}

internal sealed class ElectraPredictions(PretrainedConfig config, Encoder body) : Module
{
    public readonly LayerNorm LayerNorm = new(body.TokenEmbedding.Width, config.Number("layer_norm_eps", 1e-12));
    public readonly Linear dense = new(body.Width, body.TokenEmbedding.Width, hasBias: true);

    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return LayerNorm.Forward(F.gelu(dense.Forward(x, batch)), batch).MoveToOuterDisposeScope();
    }
}
