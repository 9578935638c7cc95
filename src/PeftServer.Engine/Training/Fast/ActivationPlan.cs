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

/// <summary>Chooses the fastest plan whose memory, by <see cref="StepMemory"/>, is there.</summary>
internal sealed class ActivationPlanner
{
    /// <summary>Of the memory that is free, so much may be planned with: allocators leave gaps.</summary>
    private const double Usable = 0.92;

    private readonly StepMemory _memory;
    private readonly ActivationPlan _last;
    private readonly ActivationPlan? _fixed;
    private readonly double _budget;

    private ActivationPlanner(StepMemory memory, Device device, double budget, ActivationPlan? plan)
    {
        (_memory, _budget, _fixed) = (memory, budget, plan);
        _last = device.type is DeviceType.CUDA ? ActivationPlan.Offload : ActivationPlan.Lean;
    }

    /// <summary>Plans for the memory that is free now on <paramref name="device"/>, which is to hold all but activations by then.</summary>
    public static ActivationPlanner ForFreeMemory(StepMemory memory, Device device) =>
        ForBytes(device.type is DeviceType.CUDA ? CudaDriver.Memory().Free : GC.GetGCMemoryInfo().TotalAvailableMemoryBytes, memory, device);

    /// <summary>Plans for so many bytes beside the weights.</summary>
    public static ActivationPlanner ForBytes(long bytes, StepMemory memory, Device device) => new(memory, device, Usable * bytes, null);

    public static ActivationPlanner Always(ActivationPlan plan, StepMemory memory, Device device) => new(memory, device, 0, plan);

    /// <summary>The plan for a batch.</summary>
    public ActivationPlan For(BatchShape batch) => _fixed ?? Candidates(batch.TokenCount, batch.Lengths.Max()).First(
        candidate => candidate == _last || _memory.Of(candidate, batch) <= _budget);

    /// <summary>Why <paramref name="plan"/> is the one for a batch.</summary>
    public string Reason(ActivationPlan plan, BatchShape batch)
    {
        const double GiB = 1L << 30;
        return _fixed is not null ? "as told" : FormattableString.Invariant(
            $"a batch of {batch.TokenCount} tokens (longest row {batch.Lengths.Max()}) takes about {_memory.Of(plan, batch) / GiB:0.0} GiB so, of {_budget / GiB:0.0} GiB to be had");
    }

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
        yield return _last;
    }
}
