using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Reading;

/// <summary>A loaded model that reads texts, and how its tensors become rows of numbers. Its thread's own.</summary>
internal sealed class ReadingModel : IDisposable
{
    private readonly SentenceEncoder? _encoder;

    private ReadingModel(ClassificationModel model, SentenceEncoder? encoder)
    {
        (Model, _encoder) = (model, encoder);
        Limits = new ReadingLimits(
            Math.Min(encoder?.MaxLength ?? int.MaxValue, model.MaxLength),
            model.Config.VocabSize,
            model.Kind is PredictionKind.Sequence or PredictionKind.Token ? model.Config.Labels : [],
            ActivationOf(model));
    }

    public ClassificationModel Model { get; }

    public ReadingLimits Limits { get; }

    public static ReadingModel Load(ReadingEngineOptions options, Device device, ScalarType dtype)
    {
        if (options.Head is ModelHead.Features)
        {
            var encoder = SentenceEncoder.Load(options.ModelFolder, device, dtype, options.Shared);
            return new ReadingModel(encoder.Model, encoder);
        }

        return PretrainedModel.Load(options.ModelFolder, device, dtype, options.Head, labels: options.Labels, shared: options.Shared) is ClassificationModel model
            ? new ReadingModel(model, null)
            : throw new NotSupportedException($"A model under the head {options.Head} writes; it does not read.");
    }

    /// <summary>What the model says of each text, all under one set of adapters.</summary>
    public IReadOnlyList<Reading> Read(IReadOnlyList<ReadingRequest> texts, IReadOnlyList<Adapter> adapters)
    {
        using var scope = NewDisposeScope();
        using var batch = ForwardBatch.Packed(
            [.. texts.Select(text => text.Ids)], adapters, Model.Device, tasks: [.. texts.Select(text => text.Task)],
            tokenTypes: [.. texts.Select(text => text.TypeIds ?? new int[text.Ids.Length])]);
        var scores = (_encoder is null ? Model.Predict(batch) : _encoder.Embed(batch)).to(ScalarType.Float32).cpu().contiguous(); // [sequences or n, width]
        var (width, values) = ((int)scores.size(1), scores.data<float>().ToArray());
        return [.. texts.Select((_, i) => new Reading(Model.Kind is PredictionKind.Token or PredictionKind.Span ? Rows(batch.Starts[i] + batch.PromptRows[i], batch.Starts[i + 1]) : Rows(i, i + 1)))];

        List<float[]> Rows(int from, int to) => [.. Enumerable.Range(from, to - from).Select(row => values[(row * width)..((row + 1) * width)])];
    }

    // A single label is a number only where the config says so; else its score is the odds of "yes".
    private static ScoreActivation ActivationOf(ClassificationModel model) => (model.Problem, model.Config.Text("problem_type", "")) switch
    {
        (ProblemType.Regression, "regression") => ScoreActivation.None,
        (ProblemType.SingleLabel, _) => ScoreActivation.Softmax,
        _ => ScoreActivation.Sigmoid,
    };

    public void Dispose()
    {
        if (_encoder is null)
        {
            Model.Dispose();
        }

        _encoder?.Dispose();
    }
}
