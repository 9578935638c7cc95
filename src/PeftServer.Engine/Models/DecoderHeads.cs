namespace PeftServer.Engine.Models;

/// <summary>
/// A decoder under a head that scores sequences, tokens or answers. The fields that hold the decoder and the head are those that
/// the checkpoint names; the others are null.
/// </summary>
internal sealed class DecoderForClassification : ClassificationModel
{
    public readonly Decoder? model;
    public readonly Decoder? transformer;
    public readonly Decoder? gpt_neox;
    public readonly Linear? score;
    public readonly Linear? classifier;
    public readonly Linear? qa_outputs;
    private readonly Decoder _decoder;
    private readonly Linear _head;
    private readonly string _bodyName;
    private readonly int? _pad;

    public DecoderForClassification(PretrainedConfig config, Decoder decoder, string body, PredictionKind kind)
        : base(config, kind)
    {
        (_decoder, _bodyName) = (decoder, body);
        switch (body)
        {
            case nameof(model):
                model = decoder;
                break;
            case nameof(gpt_neox):
                gpt_neox = decoder;
                break;
            default:
                transformer = decoder;
                break;
        }

        _head = new Linear(decoder.Width, kind is PredictionKind.Span ? 2 : config.LabelCount, hasBias: kind is not PredictionKind.Sequence);
        switch (kind)
        {
            case PredictionKind.Span:
                qa_outputs = _head;
                break;
            case PredictionKind.Token when config.ModelType is "gpt2" or "gpt_neox" or "bloom" or "falcon":
                classifier = _head;
                break;
            default:
                score = _head;
                break;
        }

        _pad = config.Has("pad_token_id") ? config.Int("pad_token_id") : null;
    }

    public override int HiddenSize => _decoder.Width;

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var hidden = _decoder.Forward(batch); // [n, width]
        if (Kind is not PredictionKind.Sequence)
        {
            return _head.Forward(hidden, batch).MoveToOuterDisposeScope(); // [n, labels]
        }

        using var heads = batch.PerSequence();
        return _head.Forward(hidden.index_select(0, Lasts(batch)), heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }

    protected override string BasePrefix => _bodyName;

    protected override bool Ignores(string name) => DecoderBuffers.Are(name);

    // Some architectures once kept the body of this head under the other name.
    protected override string Rename(string name) =>
        Kind is PredictionKind.Span && _bodyName is not nameof(gpt_neox) && name.StartsWith(OtherBody, StringComparison.Ordinal)
            ? $"{_bodyName}.{name[OtherBody.Length..]}"
            : DecoderBuffers.Rename(name);

    private string OtherBody => _bodyName == nameof(model) ? "transformer." : "model.";

    /// <summary>
    /// The last token of each sequence that is not padding by its id: transformers' rule, which also steps over a padding token that
    /// stands for the end of a text.
    /// </summary>
    private Tensor Lasts(ForwardBatch batch)
    {
        var lasts = batch.Starts.Skip(1).Select(end => end - 1L).ToArray();
        if (_pad is { } pad)
        {
            using var onCpu = batch.Ids.cpu();
            var ids = onCpu.data<long>();
            for (var i = 0; i < lasts.Length; i++)
            {
                var last = lasts[i];
                while (last > batch.Starts[i] && ids[last] == pad)
                {
                    last--;
                }

                lasts[i] = last;
            }
        }

        return tensor(lasts, device: batch.Ids.device);
    }
}

/// <summary>A decoder alone, as <c>AutoModel</c> saves it: its parts have no name before them.</summary>
internal sealed class DecoderFeatures(PretrainedConfig config, Decoder body, string prefix) : ClassificationModel(config, PredictionKind.Features)
{
    public override int HiddenSize => body.Width;

    public override Tensor Predict(ForwardBatch batch) => body.Forward(batch); // [n, width]

    internal override IEnumerable<(string Name, Module Module)> Children() => body.Children();

    protected override string BasePrefix => prefix;

    protected override bool Ignores(string name) => DecoderBuffers.Are(name);

    protected override string Rename(string name) => DecoderBuffers.Rename(name);
}
