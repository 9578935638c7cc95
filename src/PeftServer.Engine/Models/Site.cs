using PeftServer.Engine.Adapters;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A place of a frozen model where adapters attach: a projection, an embedding, a norm. Without adapters it computes what the
/// checkpoint says; with some, each run of tokens goes through the parts of the adapters that its sequences use.
/// See <c>Adapters/SITES.md</c>.
/// </summary>
public abstract class Site : Module
{
    private readonly Dictionary<Adapter, List<SiteAdapter>> _parts = [];

    public abstract Weight Weight { get; }

    public virtual Weight? Bias => null;

    /// <summary>What the site computes with these tensors in place of its own. x is [n, in] (or ids [n]); y is [n, out].</summary>
    public abstract Tensor Compute(Tensor x, Tensor weight, Tensor? bias);

    /// <summary>What the checkpoint's own weights compute.</summary>
    public virtual Tensor Frozen(Tensor x) => Compute(x, Weight.Value, Bias?.Value);

    /// <summary>What the model gets from here: the frozen result under the adapters of <paramref name="batch"/>.</summary>
    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        if (_parts.Count == 0)
        {
            return Frozen(x);
        }

        return batch.Runs is [var all] ? ForwardRun(x, batch, all) : ForwardRuns(x, batch);
    }

    /// <summary>Whether any adapter sits here.</summary>
    internal bool IsAdapted => _parts.Count > 0;

    internal void Attach(Adapter adapter, SiteAdapter part)
    {
        if (!_parts.TryGetValue(adapter, out var parts))
        {
            _parts[adapter] = parts = [];
        }

        parts.Add(part);
    }

    internal void Detach(Adapter adapter) => _parts.Remove(adapter);

    internal IReadOnlyList<SiteAdapter> PartsOf(Adapter adapter) => _parts.TryGetValue(adapter, out var parts) ? parts : [];

    internal Tensor Next(Tensor x, in SiteCall call) =>
        call.Depth == 0 ? Frozen(x) : call.Parts[call.Depth - 1].Forward(x, call with { Depth = call.Depth - 1 });

    /// <summary>As <see cref="Forward"/>, for the adapters of one run; x is what that run has of the input.</summary>
    internal Tensor ForwardRun(Tensor x, ForwardBatch batch, AdapterRun run)
    {
        var parts = PartsOf(run);
        return parts.Count == 0 ? Frozen(x) : Next(x, new SiteCall(this, batch, run, parts, parts.Count));
    }

    /// <summary>Sequences with different adapters in one batch: the frozen product once, what only adds for its own tokens.</summary>
    private Tensor ForwardRuns(Tensor x, ForwardBatch batch)
    {
        var runs = batch.Runs.Select(run => (Run: run, Parts: PartsOf(run))).ToList();
        if (runs.TrueForAll(entry => entry.Parts.Count == 0))
        {
            return Frozen(x);
        }

        using var scope = NewDisposeScope();
        if (runs.TrueForAll(entry => entry.Parts.TrueForAll(part => part is AdditiveSiteAdapter)) && !is_grad_enabled())
        {
            var y = Frozen(x); // [n, out]
            foreach (var (run, parts) in runs)
            {
                foreach (var part in parts.Cast<AdditiveSiteAdapter>())
                {
                    var delta = part.Delta(x.narrow(0, run.Start, run.Count), new SiteCall(this, batch, run, parts, 0));
                    y.narrow(0, run.Start, run.Count).add_(delta, Native.TensorArithmetic.One);
                }
            }

            return y.MoveToOuterDisposeScope();
        }

        var outputs = runs.Select(entry => ForwardRun(x.narrow(0, entry.Run.Start, entry.Run.Count), batch, entry.Run)).ToArray();
        return cat(outputs, 0).MoveToOuterDisposeScope();
    }

    private List<SiteAdapter> PartsOf(AdapterRun run) => run.Adapters switch
    {
        [] => [],
        [var one] => _parts.TryGetValue(one, out var parts) ? parts : [],
        var several => [.. several.SelectMany(adapter => _parts.TryGetValue(adapter, out var parts) ? parts : [])],
    };
}

/// <summary>A run of tokens, one sequence after another, that all use the same adapters.</summary>
public sealed record AdapterRun(IReadOnlyList<Adapter> Adapters, int Start, int Count);

/// <summary>One call of a site for one run of tokens, as its adapters see it.</summary>
public readonly record struct SiteCall(Site Site, ForwardBatch Batch, AdapterRun Run, List<SiteAdapter> Parts, int Depth)
{
    /// <summary>The frozen site under the adapters attached before this one. An adapter may call it with a changed x.</summary>
    public Tensor Next(Tensor x) => Site.Next(x, this);
}
