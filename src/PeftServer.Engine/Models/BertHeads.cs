using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>BERT, RoBERTa or ELECTRA under a head. The body's field is the one that the checkpoint names.</summary>
internal abstract class BertWithHead : ClassificationModel
{
    public readonly BertModel? bert;
    public readonly BertModel? roberta;
    public readonly BertModel? electra;

    private protected BertWithHead(PretrainedConfig config, PredictionKind kind, bool pools = false)
        : base(config, kind)
    {
        Body = new BertModel(config, pools);
        switch (config.ModelType)
        {
            case "roberta":
                roberta = Body;
                break;
            case "electra":
                electra = Body;
                break;
            default:
                bert = Body;
                break;
        }
    }

    public override int HiddenSize => Config.Int("hidden_size");

    private protected BertModel Body { get; }

    protected override bool Ignores(string name) => DecoderBuffers.Are(name);

    protected override string BasePrefix => Config.ModelType;

    /// <summary>States of the first token of each sequence.</summary>
    private protected static Tensor Firsts(Tensor hidden, ForwardBatch batch)
    {
        using var firsts = tensor(batch.Starts.Take(batch.SequenceCount).Select(start => (long)start).ToArray(), device: hidden.device);
        return hidden.index_select(0, firsts); // [sequences, hidden]
    }
}

internal sealed class BertForSequenceClassification : BertWithHead
{
    public readonly Linear classifier;

    public BertForSequenceClassification(PretrainedConfig config)
        : base(config, PredictionKind.Sequence, pools: true) => classifier = new Linear(HiddenSize, config.LabelCount, hasBias: true);

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        using var heads = batch.PerSequence();
        var first = Firsts(Body.Forward(batch), batch);
        return classifier.Forward(Body.pooler!.Forward(first, heads), heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

/// <summary>RoBERTa's and ELECTRA's head: a dense layer (tanh, or gelu) and a projection on the first token.</summary>
internal sealed class RobertaForSequenceClassification : BertWithHead
{
    public readonly RobertaClassificationHead classifier;

    public RobertaForSequenceClassification(PretrainedConfig config)
        : base(config, PredictionKind.Sequence) => classifier = new RobertaClassificationHead(HiddenSize, config.LabelCount);

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        using var heads = batch.PerSequence();
        var inner = classifier.dense.Forward(Firsts(Body.Forward(batch), batch), heads);
        inner = Config.ModelType == "electra" ? F.gelu(inner) : inner.tanh();
        return classifier.out_proj.Forward(inner, heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

internal sealed class RobertaClassificationHead(int hidden, int labels) : Module
{
    public readonly Linear dense = new(hidden, hidden, hasBias: true);
    public readonly Linear out_proj = new(hidden, labels, hasBias: true);
}

/// <summary>Scores of every token: <c>classifier</c>, or for answers <c>qa_outputs</c>.</summary>
internal sealed class BertForTokens : BertWithHead
{
    public readonly Linear? classifier;
    public readonly Linear? qa_outputs;

    public BertForTokens(PretrainedConfig config, PredictionKind kind)
        : base(config, kind)
    {
        var head = new Linear(HiddenSize, kind is PredictionKind.Span ? 2 : config.LabelCount, hasBias: true);
        (classifier, qa_outputs) = kind is PredictionKind.Span ? (null, head) : (head, (Linear?)null);
    }

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return (classifier ?? qa_outputs)!.Forward(Body.Forward(batch), batch).MoveToOuterDisposeScope(); // [n, labels]
    }
}

/// <summary>BERT's masked language model; its decoder shares the table of words.</summary>
internal sealed class BertForMaskedLM : BertWithHead
{
    public readonly BertPredictionModule cls;

    public BertForMaskedLM(PretrainedConfig config)
        : base(config, PredictionKind.MaskedToken) => cls = new BertPredictionModule(config, Body.embeddings.word_embeddings);

    public override string OutputHead => "cls.predictions.decoder";

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return cls.predictions.Forward(Body.Forward(batch), batch).MoveToOuterDisposeScope(); // [n, vocabulary]
    }

    protected override bool Ignores(string name) =>
        base.Ignores(name) || name.StartsWith("cls.predictions.decoder.", StringComparison.Ordinal) || name.StartsWith("cls.seq_relationship.", StringComparison.Ordinal)
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

/// <summary>The body alone, as <c>BertModel</c> saves it: no name before its parts.</summary>
internal sealed class BertFeatures : ClassificationModel
{
    public readonly BertEmbeddings embeddings;
    public readonly Linear? embeddings_project;
    public readonly BertEncoder encoder;
    public readonly BertPooler? pooler;
    public readonly HiddenSite invertible_adapters;
    private readonly BertModel _body;

    public BertFeatures(PretrainedConfig config)
        : base(config, PredictionKind.Features)
    {
        _body = new BertModel(config, pools: config.ModelType != "electra");
        (embeddings, embeddings_project, encoder, pooler) = (_body.embeddings, _body.embeddings_project, _body.encoder, _body.pooler);
        invertible_adapters = _body.invertible_adapters;
    }

    public override int HiddenSize => Config.Int("hidden_size");

    public override Tensor Predict(ForwardBatch batch) => _body.Forward(batch);

    protected override bool Ignores(string name) => DecoderBuffers.Are(name);

    protected override string BasePrefix => Config.ModelType;
}
