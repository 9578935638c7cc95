using PeftServer.Engine.Kernels;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Fast;

/// <summary>What becomes of a block's activations between forward and backward.</summary>
internal enum ActivationMode
{
    /// <summary>They stay in memory.</summary>
    Keep,

    /// <summary>Only the block's input stays; the rest is computed again.</summary>
    Recompute,

    /// <summary>As <see cref="Recompute"/>, with the blocks' inputs in the host's memory: for the longest sequences.</summary>
    Offload,
}

/// <summary>
/// How a batch goes through the fast step: what is kept, and how many tokens go through the model at once. Gradients of the parts add up,
/// so the result is that of the whole batch; products of a few thousand rows are about as fast as longer ones.
/// </summary>
internal readonly record struct ActivationPlan(ActivationMode Mode, int PassTokens)
{
    public const int LeanTokens = 4096;

    /// <summary>All activations of the whole batch at once.</summary>
    public static ActivationPlan Keep => new(ActivationMode.Keep, int.MaxValue);

    public static ActivationPlan Lean => new(ActivationMode.Recompute, LeanTokens);

    public static ActivationPlan Offload => new(ActivationMode.Offload, LeanTokens);

    /// <summary>What a setting asks for; null where memory decides.</summary>
    public static ActivationPlan? Of(bool? gradientCheckpointing) => gradientCheckpointing switch
    {
        true => Lean,
        false => Keep,
        null => null,
    };

    public override string ToString() => (Mode switch
    {
        ActivationMode.Keep => "activations kept",
        ActivationMode.Recompute => "activations computed again",
        _ => "activations computed again, the blocks' inputs in the host's memory",
    }) + (PassTokens < int.MaxValue ? $", {PassTokens} tokens at a time" : "");
}

/// <summary>Chooses the fastest plan whose memory, by estimate, is there.</summary>
internal sealed class ActivationPlanner
{
    /// <summary>Of the memory that is free, so much may be planned with: allocators leave gaps.</summary>
    private const double Usable = 0.92;

    private readonly FastDecoder _model;
    private readonly ActivationPlan? _fixed;
    private readonly double _budget;

    private ActivationPlanner(FastDecoder model, double budget, ActivationPlan? plan) => (_model, _budget, _fixed) = (model, budget, plan);

    /// <summary>Plans for the memory that is free now on the device of the model, which is to hold all but activations by then.</summary>
    public static ActivationPlanner ForFreeMemory(FastDecoder model) => new(
        model, Usable * (model.Model.Device.type is DeviceType.CUDA ? CudaDriver.Memory().Free : GC.GetGCMemoryInfo().TotalAvailableMemoryBytes), null);

    /// <summary>Plans for so many bytes beside the weights; the model may be shapes alone.</summary>
    public static ActivationPlanner ForBytes(long bytes, FastDecoder model) => new(model, Usable * bytes, null);

    public static ActivationPlanner Always(ActivationPlan plan, FastDecoder model) => new(model, 0, plan);

    /// <summary>The plan for a batch.</summary>
    public ActivationPlan For(SftBatch batch) => _fixed ?? Candidates(batch.TokenCount, Longest(batch)).First(
        candidate => candidate == Last || Bytes(candidate, batch) <= _budget);

    /// <summary>Why <paramref name="plan"/> is the one for a batch.</summary>
    public string Reason(ActivationPlan plan, SftBatch batch)
    {
        const double GiB = 1L << 30;
        return _fixed is not null ? "as told" : FormattableString.Invariant(
            $"a batch of {batch.TokenCount} tokens (longest row {Longest(batch)}) takes about {Bytes(plan, batch) / GiB:0.0} GiB so, of {_budget / GiB:0.0} GiB to be had");
    }

    private static int Longest(SftBatch batch) => batch.Sequences.Max(sequence => sequence.Length);

    private ActivationPlan Last => _model.Model.Device.type is DeviceType.CUDA ? ActivationPlan.Offload : ActivationPlan.Lean;

    private IEnumerable<ActivationPlan> Candidates(int tokens, int longest)
    {
        yield return ActivationPlan.Keep;
        for (var pass = 16_384; pass >= ActivationPlan.LeanTokens; pass /= 2)
        {
            if (pass < tokens && pass >= longest)
            {
                yield return new ActivationPlan(ActivationMode.Keep, pass);
            }
        }

        yield return ActivationPlan.Lean;
        yield return Last;
    }

    /// <summary>Bytes beside the weights while a batch goes through the model as planned.</summary>
    public double Bytes(ActivationPlan plan, SftBatch batch)
    {
        var tokens = Math.Min(batch.TokenCount, Math.Max(plan.PassTokens, Longest(batch))); // at once
        var heads = _model.Heads;
        double element = _model.Model.Dtype is ScalarType.Float32 ? 4 : 2;
        double hidden = _model.Hidden, intermediate = _model.Intermediate;
        var block = _model.Blocks[0];
        var attention = heads.Width + heads.QueryWidth + (block.QueryNorm is null ? 0 : heads.QueryWidth + heads.KeyValueWidth);
        var stream = (block.IsParallel ? 1 : 2) + (block.AttentionEnd.Norm is null ? 0 : 1) + (block.MlpEnd.Norm is null ? 0 : 1); // rows of it that are kept
        var kept = plan.Mode switch
        {
            ActivationMode.Keep => ((stream * hidden) + attention + ((block.IsGated ? 2 : 1) * intermediate) + 256) * element, // a few ranks stand beside them
            ActivationMode.Recompute => hidden * element,
            _ => 0,
        };

        // One block at work: about ten rows of the stream, attention forward and backward (its sums of dq are float32), and the feed-forward.
        var wide = plan.Mode is ActivationMode.Keep ? tokens : Math.Min(tokens, ActivationPlan.LeanTokens);
        var work = (tokens * ((10 * hidden) + (3 * attention) + (4 * heads.QueryWidth)) * element) + (wide * 5 * intermediate * element);
        work += wide * 3 * _model.ExpertsPerToken * hidden * element; // rows of the stream, once for each expert
        const double Filled = 1.5; // sequences are filled up to the longest of those they go with
        work += block.Scope.SoftCap is null ? 0 : 2.0 * Filled * heads.QueryHeads * CappedAttention.Chunk * tokens * element; // attention's scores and their gradient
        var scores = 2.5 * Math.Min(tokens, 4096) * _model.Head.OutFeatures * element;
        return (tokens * kept * _model.Blocks.Count) + Math.Max(work, scores) + (64 << 20);
    }
}
