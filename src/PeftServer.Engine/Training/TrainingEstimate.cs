using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Training;

/// <summary>What a run will need, from its files and shapes alone: no tensors, no libtorch.</summary>
public sealed record TrainingEstimate
{
    /// <summary>What became of the rows of the training file.</summary>
    public required DataSummary Data { get; init; }

    public required int Steps { get; init; }

    /// <summary>Tokens that go through the model in the whole run, evaluations left out.</summary>
    public required long Tokens { get; init; }

    /// <summary>Parameters of the base, and those that train.</summary>
    public required (long Base, long Trainable) Parameters { get; init; }

    /// <summary>Bytes of the base's weights.</summary>
    public required long WeightBytes { get; init; }

    /// <summary>Bytes of trained weights, gradients and optimizer state.</summary>
    public required long OptimizerBytes { get; init; }

    /// <summary>Bytes that the largest micro-batch keeps for its backward pass, its scores over the vocabulary included.</summary>
    public required long ActivationBytes { get; init; }

    /// <summary>Multiplications and additions of the whole run.</summary>
    public required double Flops { get; init; }

    /// <summary>All of the memory above.</summary>
    public long MemoryBytes => WeightBytes + OptimizerBytes + ActivationBytes;

    /// <summary>
    /// Reads the training file and counts. <paramref name="halves"/>: the base is in bfloat16. Throws what reading a model, a tokenizer or settings throws.
    /// </summary>
    public static TrainingEstimate Of(TrainingSpec spec, bool halves)
    {
        using var labelled = File.OpenRead(spec.TrainingFile);
        var labels = MethodData.Labels(spec.Method, labelled, StartingAdapters.LabelsOf(spec.StartingAdapter));
        var config = PretrainedConfig.Read(spec.Model);
        var model = PretrainedModel.Plan(labels is null ? config : config.WithLabels(labels), spec.Method.Head);
        using var adapter = spec.Peft.CreateAdapter(model);
        using var rows = File.OpenRead(spec.TrainingFile);
        var maxLength = MethodData.MaxLength(spec.Training, MethodData.LengthOf(model) - adapter.VirtualTokens);
        var (data, summary) = MethodData.Read(spec.Method, rows, Tokenizer.Load(spec.Model), spec.Training, maxLength, labels);
        if (summary.Used == 0)
        {
            throw new TrainingException($"No row of {Path.GetFileName(spec.TrainingFile)} can be used: {summary.Reasons.Keys.FirstOrDefault()}");
        }

        var plan = TrainingPlan.For((int)summary.Used, spec.Training, spec.Method);
        var passes = (double)plan.TotalSteps / plan.StepsPerEpoch;
        var tokens = (long)(summary.Tokens * passes);
        var width = halves ? 2 : 4;
        var batch = MethodData.Shown(data, maxLength).Select(row => (row.InputIds.Length, Targets: row.TrainedCount))
            .OrderByDescending(row => row.Length).Take(spec.Training.PerDeviceTrainBatchSize).ToList();
        var heads = model is LanguageModel ? batch.Sum(row => (long)Math.Max(1, row.Targets)) * config.VocabSize : 0;
        return new TrainingEstimate
        {
            Data = summary,
            Steps = plan.TotalSteps,
            Tokens = tokens,
            Parameters = (model.ParameterCount, adapter.TrainableCount),
            WeightBytes = WeightsOf(model, spec.Training.Quantization, width),
            OptimizerBytes = adapter.TrainableCount * (8 + StateBytes(spec.Training.Optim)),
            ActivationBytes = (batch.Sum(row => (long)row.Length) * PerToken(model) * width) + (heads * 3 * sizeof(float)),
            Flops = FlopsOf(model, adapter, tokens),
        };
    }

    /// <summary>Linear layers may lie packed; what is left is as wide as the computation.</summary>
    private static long WeightsOf(PretrainedModel model, BaseQuantization quantization, int width)
    {
        var packed = quantization is BaseQuantization.None ? 0
            : model.Sites().OfType<Projection>().Where(site => site.Path != model.OutputHead).Sum(site => site.Weight.ElementCount);
        var bytes = quantization is BaseQuantization.Nf4 ? 0.5 + (1.0 / 16) : 1; // with a float32 scale to 64 values
        return ((model.ParameterCount - packed) * width) + (long)(packed * bytes);
    }

    /// <summary>Values that a token leaves behind on its way: what goes into and comes out of every projection and norm.</summary>
    private static long PerToken(PretrainedModel model) => model.Sites()
        .Where(site => site is not Embedding && site.Path != model.OutputHead)
        .Sum(site => site is Projection ? site.Weight.Shape.Sum() : 2 * site.Weight.ElementCount);

    /// <summary>Forward, and backward to the activations; weights that train cost a third product.</summary>
    private static double FlopsOf(PretrainedModel model, Adapter adapter, long tokens)
    {
        var projected = model.Sites().OfType<Projection>().Sum(site => (double)site.Weight.ElementCount);
        return tokens * ((4 * projected) + (6.0 * adapter.TrainableCount));
    }

    /// <summary>Bytes of state for each trained value.</summary>
    private static int StateBytes(OptimizerName optimizer) => optimizer switch
    {
        OptimizerName.Sgd => 0,
        OptimizerName.Adamw8Bit or OptimizerName.AdamwBnb8Bit => 2,
        OptimizerName.Adafactor => 1,
        OptimizerName.Lion or OptimizerName.Adagrad or OptimizerName.Rmsprop or OptimizerName.Muon => 4,
        _ => 8,
    };
}
