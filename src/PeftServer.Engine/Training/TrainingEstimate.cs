using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Training;

/// <summary>What a run will need, from its files and shapes alone, without tensors: the rows that each step will meet are known before it, so steps and tokens are exact.</summary>
public sealed record TrainingEstimate
{
    /// <summary>What became of the rows of the training file.</summary>
    public required DataSummary Data { get; init; }

    public required int Steps { get; init; }

    /// <summary>Tokens that go through the model in the whole run, evaluations left out.</summary>
    public required long Tokens { get; init; }

    /// <summary>Parameters of the base, and those that train.</summary>
    public required (long Base, long Trainable) Parameters { get; init; }

    /// <summary>Memory at the run's peak.</summary>
    public required MemoryEstimate Memory { get; init; }

    /// <summary>Operations of the whole run, as <see cref="TrainingFlops"/> counts them.</summary>
    public required double Flops { get; init; }

    /// <summary>The product that a run makes most of: rows of the largest micro-batch through the widest map of a block.</summary>
    public required (int Rows, int In, int Out) Product { get; init; }

    /// <summary>Bytes that go through the device's memory beside its products: each activation is written, read by what follows and in its gradient, which does the same.</summary>
    public required double Traffic { get; init; }

    /// <summary>Whether the run may make fewer tokens than told: GRPO's answers end where they do.</summary>
    public required bool IsUpperBound { get; init; }

    /// <summary>
    /// Reads the training file and counts, for a run on <paramref name="device"/> with the base in <paramref name="dtype"/>. <paramref name="runtime"/>: asked for the bytes of this process when the data have been
    /// read, as those of a trainer that is ready to load a model; <paramref name="free"/>: bytes that the device has for the run. Throws what reading a model, a tokenizer or settings throws.
    /// </summary>
    public static TrainingEstimate Of(TrainingSpec spec, Device device, ScalarType dtype, Func<long> runtime, long free)
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

        var shapes = new RunShapes(spec, data, maxLength, adapter);
        var counted = new TrainingFlops(model, adapter);
        var (tokens, flops, mostScored) = (0L, 0.0, new BatchShape([], 0));
        var longest = device.type is DeviceType.CUDA ? shapes.Longest() : new BatchShape([], 0); // tried before the first step
        foreach (var batch in shapes.MicroBatches())
        {
            tokens += batch.TokenCount;
            flops += counted.Of(batch);
            longest = batch.TokenCount > longest.TokenCount ? batch : longest;
            mostScored = batch.Scored > mostScored.Scored ? batch : mostScored;
        }

        var memory = new MemoryModel(spec, model, adapter, device, dtype).Peak([longest, mostScored], runtime(), free);
        var widest = model.Sites().OfType<Projection>().Where(site => site.Path != model.OutputHead).MaxBy(site => (long)site.InFeatures * site.OutFeatures)!;
        return new TrainingEstimate
        {
            Data = summary,
            Steps = shapes.Plan.TotalSteps,
            Tokens = tokens,
            Parameters = (model.ParameterCount, adapter.TrainableCount),
            Memory = memory,
            Flops = flops,
            Product = (longest.TokenCount, widest.InFeatures, widest.OutFeatures),
            Traffic = 6.0 * memory.Activations * tokens / longest.TokenCount,
            IsUpperBound = spec.Method.Settings is Objectives.GrpoSettings,
        };
    }
}
