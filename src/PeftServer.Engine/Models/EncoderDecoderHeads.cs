namespace PeftServer.Engine.Models;

/// <summary>An encoder and a decoder without a head.</summary>
internal abstract class EncoderDecoder : Module
{
    public abstract int Width { get; }

    /// <summary>The encoder's last hidden state of every token: [m, width].</summary>
    public abstract Tensor Encode(ForwardBatch batch);

    /// <summary>The decoder's last hidden state of every token of a batch that carries encoded texts: [n, width].</summary>
    public abstract Tensor Decode(ForwardBatch batch);
}

/// <summary>
/// A head on an encoder-decoder that reads one text twice: the decoder is given the encoder's text one place to the right. Scores of a
/// sequence come from the state of its last end-of-sequence token, answers from those of all. Without a head it is the states themselves.
/// </summary>
internal sealed class EncoderDecoderForClassification : ClassificationModel
{
    public readonly DenseClassificationHead? classification_head;
    public readonly Linear? qa_outputs;
    private readonly EncoderDecoder _body;
    private readonly string _bodyName;
    private readonly int _start;
    private readonly int _end;

    /// <param name="config">The model's.</param>
    /// <param name="body">What the head stands on.</param>
    /// <param name="bodyName">Its name in the checkpoint; empty: its parts have no name before them.</param>
    /// <param name="kind">What the head says.</param>
    public EncoderDecoderForClassification(PretrainedConfig config, EncoderDecoder body, string bodyName, PredictionKind kind)
        : base(config, kind)
    {
        (_body, _bodyName) = (body, bodyName);
        _start = config.Has("decoder_start_token_id") ? config.Int("decoder_start_token_id") : config.Int("pad_token_id", 0);
        _end = config.Int("eos_token_id", config.ModelType == "bart" ? 2 : 1);
        classification_head = kind is PredictionKind.Sequence ? new DenseClassificationHead(HiddenSize, config.LabelCount) : null;
        qa_outputs = kind is PredictionKind.Span ? new Linear(HiddenSize, 2, hasBias: true) : null;
    }

    public override int HiddenSize => _body.Width;

    public override Tensor Predict(ForwardBatch batch)
    {
        if (batch.PromptRows.Any(rows => rows > 0) || batch.Prefixes.Count > 0)
        {
            throw new NotSupportedException($"Virtual tokens and prefixes do not go with a classifier on an encoder-decoder ({Config.ModelType}). Use an adapter of the weights, such as LoRA.");
        }

        using var scope = NewDisposeScope();
        using var onCpu = batch.Ids.cpu();
        var ids = onCpu.data<long>().ToArray();
        var parts = batch.Runs.Select(run => OfRun(batch, run, ids)).ToArray();
        return (parts is [var one] ? one : cat(parts, 0)).MoveToOuterDisposeScope();
    }

    internal override IEnumerable<(string Name, Module Module)> Children() =>
        (_bodyName.Length == 0 ? _body.Children() : [(_bodyName, _body)]).Concat(base.Children());

    protected override string BasePrefix => _bodyName.Length > 0 ? _bodyName : Config.ModelType == "bart" ? "model" : "transformer";

    protected override IReadOnlyCollection<string> HeadNames => [nameof(classification_head), nameof(qa_outputs)];

    // Heads of other models on the same body.
    protected override bool Ignores(string name) => name == "final_logits_bias" || T5Body.IsNeverUsed(name);

    private Tensor OfRun(ForwardBatch batch, AdapterRun run, long[] ids)
    {
        using var scope = NewDisposeScope();
        var sequences = Enumerable.Range(0, batch.SequenceCount).Where(i => batch.Starts[i] >= run.Start && batch.Starts[i] < run.Start + run.Count).ToList();
        var rows = sequences.ConvertAll(i => Array.ConvertAll(ids[batch.Starts[i]..batch.Starts[i + 1]], id => (int)id));

        // Padding is nothing to the encoder, and so nothing that the decoder looks at.
        using var texts = ForwardBatch.Packed([.. rows.Select((row, i) => row[..batch.RealLength(sequences[i])])], run.Adapters, batch.Ids.device, batch.Dropout, encodes: true);
        using var source = new EncodedSource(texts, GradientCheckpoints.Cut(_body.Encode(texts)));
        var tasks = batch.Tasks.Count == 0 ? null : sequences.ConvertAll(batch.TaskOf);
        using var written = ForwardBatch.Packed([.. rows.Select(row => row.SkipLast(1).Prepend(_start).ToArray())], run.Adapters, batch.Ids.device, batch.Dropout, tasks, source);
        var hidden = _body.Decode(written); // [n, width]
        if (classification_head is null)
        {
            return (qa_outputs?.Forward(hidden, written) ?? hidden).MoveToOuterDisposeScope(); // [n, 2], or [n, width]
        }

        var ends = rows.Select((row, i) => Array.LastIndexOf(row, _end) is >= 0 and var last
            ? (long)written.Starts[i] + last
            : throw new InvalidOperationException($"A text without the end-of-sequence token ({_end}) has no state to be classified by: {Config.ModelType} looks for its last one."));
        using var heads = written.PerSequence();
        var inner = classification_head.dense.Forward(hidden.index_select(0, tensor(ends.ToArray(), device: hidden.device)), heads).tanh();
        return classification_head.out_proj.Forward(inner, heads).MoveToOuterDisposeScope(); // [sequences, labels]
    }
}

/// <summary>T5's encoder under a head that scores tokens.</summary>
internal sealed class T5ForTokenClassification : ClassificationModel
{
    public readonly T5EncoderBody transformer;
    public readonly Linear classifier;

    public T5ForTokenClassification(PretrainedConfig config)
        : base(config, PredictionKind.Token)
    {
        transformer = new T5EncoderBody(config);
        classifier = new Linear(HiddenSize, config.LabelCount, hasBias: true);
    }

    public override int HiddenSize => Config.Int("d_model");

    public override Tensor Predict(ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return classifier.Forward(transformer.encoder.Forward(batch), batch).MoveToOuterDisposeScope(); // [n, labels]
    }

    protected override string BasePrefix => nameof(transformer);

    protected override bool Ignores(string name) => T5Body.IsOfDecoder(name);
}

/// <summary>T5's encoder alone, which sentence encoders are made of.</summary>
internal sealed class T5EncoderFeatures(PretrainedConfig config) : ClassificationModel(config, PredictionKind.Features)
{
    private readonly T5EncoderBody _body = new(config);

    public override int HiddenSize => Config.Int("d_model");

    public override Tensor Predict(ForwardBatch batch) => _body.encoder.Forward(batch); // [n, width]

    internal override IEnumerable<(string Name, Module Module)> Children() => _body.Children();

    protected override string BasePrefix => "transformer";

    protected override bool Ignores(string name) => T5Body.IsOfDecoder(name);
}
