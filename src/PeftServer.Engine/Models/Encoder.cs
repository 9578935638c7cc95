namespace PeftServer.Engine.Models;

/// <summary>An encoder without its head: token ids in, hidden states out, every token seeing those on both sides.</summary>
internal abstract class Encoder : Module
{
    public abstract Embedding TokenEmbedding { get; }

    /// <summary>Width of what <see cref="Forward"/> gives.</summary>
    public abstract int Width { get; }

    /// <summary>The last hidden state of every token: [n, width].</summary>
    public abstract Tensor Forward(ForwardBatch batch);
}

/// <summary>An encoder under a head. The field that holds the body is the one that the checkpoint names; the others are null.</summary>
internal abstract class EncoderWithHead : ClassificationModel
{
    public readonly Encoder? bert;
    public readonly Encoder? roberta;
    public readonly Encoder? electra;
    public readonly Encoder? distilbert;
    public readonly Encoder? deberta;
    public readonly Encoder? model;

    private protected EncoderWithHead(PretrainedConfig config, Encoder body, PredictionKind kind)
        : base(config, kind)
    {
        Body = body;
        if (kind is PredictionKind.MaskedToken && !config.Flag("tie_word_embeddings", true))
        {
            throw config.Unsupported("tie_word_embeddings", false);
        }

        switch (PrefixOf(config))
        {
            case nameof(roberta):
                roberta = body;
                break;
            case nameof(electra):
                electra = body;
                break;
            case nameof(distilbert):
                distilbert = body;
                break;
            case nameof(deberta):
                deberta = body;
                break;
            case nameof(model):
                model = body;
                break;
            default:
                bert = body;
                break;
        }
    }

    public override int HiddenSize => Body.Width;

    private protected Encoder Body { get; }

    protected override string BasePrefix => PrefixOf(Config);

    protected override bool Ignores(string name) => DecoderBuffers.Are(name);

    internal static string PrefixOf(PretrainedConfig config) => config.ModelType switch
    {
        "deberta-v2" => nameof(deberta),
        "modernbert" => nameof(model),
        var other => other,
    };

    /// <summary>States of the first token of each sequence.</summary>
    private protected static Tensor Firsts(Tensor hidden, ForwardBatch batch)
    {
        using var firsts = tensor(batch.Starts.Take(batch.SequenceCount).Select(start => (long)start).ToArray(), device: hidden.device);
        return hidden.index_select(0, firsts); // [sequences, hidden]
    }
}

/// <summary>Scores of every token: <c>classifier</c>, or for answers <c>qa_outputs</c>.</summary>
internal sealed class EncoderForTokens : EncoderWithHead
{
    public readonly Linear? classifier;
    public readonly Linear? qa_outputs;

    public EncoderForTokens(PretrainedConfig config, Encoder body, PredictionKind kind)
        : base(config, body, kind)
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

/// <summary>The body alone, as <c>AutoModel</c> saves it: its parts have no name before them.</summary>
internal sealed class EncoderFeatures(PretrainedConfig config, Encoder body) : ClassificationModel(config, PredictionKind.Features)
{
    public override int HiddenSize => body.Width;

    public override Tensor Predict(ForwardBatch batch) => body.Forward(batch); // [n, width]

    internal override IEnumerable<(string Name, Module Module)> Children() => body.Children();

    protected override string BasePrefix => EncoderWithHead.PrefixOf(Config);

    protected override bool Ignores(string name) => DecoderBuffers.Are(name);
}

