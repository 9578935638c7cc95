using PeftServer.Engine.Adapters;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A place of the residual stream where adapters attach although no module of the checkpoint stands there. Without adapters it
/// computes what the model does anyway. See <c>Adapters/SITES.md</c>.
/// </summary>
/// <typeparam name="TPart">What an adapter puts here.</typeparam>
public abstract class StreamSite<TPart> : Module
    where TPart : StreamPart
{
    private readonly Dictionary<Adapter, TPart> _parts = [];

    private protected bool IsFree => _parts.Count == 0;

    internal void Attach(Adapter adapter, TPart part) => _parts.Add(adapter, part);

    internal void Detach(Adapter adapter) => _parts.Remove(adapter);

    internal TPart? PartOf(Adapter adapter) => _parts.GetValueOrDefault(adapter);

    private protected List<TPart> PartsOf(AdapterRun run) =>
        [.. run.Adapters.Select(adapter => _parts.GetValueOrDefault(adapter)).OfType<TPart>()];
}

/// <summary>What a layer adds to the stream.</summary>
public enum Sublayer
{
    SelfAttention,
    CrossAttention,
    FeedForward,
}

/// <summary>
/// Where a block adds to the stream: y = norm(h + residual), h being what the block computed; models that norm before their blocks
/// have no norm here. Pfeiffer's, Houlsby's and parallel adapters stand here.
/// </summary>
/// <param name="sublayer">The block that ends here.</param>
/// <param name="layer">Number of the layer; a decoder's go on after those of its encoder.</param>
public sealed class ResidualSite(Sublayer sublayer, int layer) : StreamSite<ResidualPart>
{
    public Sublayer Sublayer { get; } = sublayer;

    public int Layer { get; } = layer;

    /// <summary>h and residual are [n, hidden]; so is the new stream.</summary>
    public Tensor Add(Tensor h, Tensor residual, ForwardBatch batch, Site? norm = null)
    {
        using var scope = NewDisposeScope();
        if (IsFree)
        {
            var sum = residual.Plus(h);
            return (norm?.Forward(sum, batch) ?? sum).MoveToOuterDisposeScope();
        }

        var outputs = batch.Runs.Select(run => Add(
            h.narrow(0, run.Start, run.Count), new ResidualCall(residual.narrow(0, run.Start, run.Count), norm, batch, run))).ToArray();
        return (outputs is [var all] ? all : cat(outputs, 0)).MoveToOuterDisposeScope(); // [n, hidden]
    }

    private Tensor Add(Tensor h, in ResidualCall call)
    {
        var parts = PartsOf(call.Run);
        if (parts.Count == 0)
        {
            return call.Close(h);
        }

        var adapted = h;
        foreach (var part in parts)
        {
            adapted = part.Forward(part.Enter(adapted, call), call);
        }

        return parts[^1].Leave(adapted, h, call);
    }
}

/// <summary>Where the hidden states of all tokens pass by: behind the embeddings, behind a layer. ReFT and invertible adapters stand here.</summary>
/// <param name="width">Width of the states.</param>
/// <param name="layer">Number of the layer; -1 behind the embeddings.</param>
public sealed class HiddenSite(int width, int layer = -1) : StreamSite<HiddenPart>
{
    public int Width { get; } = width;

    public int Layer { get; } = layer;

    /// <summary>x and the result are [n, width].</summary>
    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        if (IsFree)
        {
            return x;
        }

        using var scope = NewDisposeScope();
        var outputs = batch.Runs.Select(run => PartsOf(run).Aggregate(x.narrow(0, run.Start, run.Count), (state, part) => part.Forward(state, batch, run))).ToArray();
        return (outputs is [var all] ? all : cat(outputs, 0)).MoveToOuterDisposeScope(); // [n, width]
    }
}

/// <summary>One call of a residual site for one run of tokens, as its adapters see it.</summary>
/// <param name="Residual">The stream before the block, [n, hidden].</param>
/// <param name="Norm">The model's norm behind the sum; null in models that norm before their blocks.</param>
/// <param name="Batch">All that goes through the model.</param>
/// <param name="Run">The tokens of this call.</param>
public readonly record struct ResidualCall(Tensor Residual, Site? Norm, ForwardBatch Batch, AdapterRun Run)
{
    /// <summary>norm(h + residual), or the sum where there is no norm.</summary>
    public Tensor Close(Tensor h) => Normed(h.Plus(Residual));

    public Tensor Normed(Tensor sum) => Norm?.ForwardRun(sum, Batch, Run) ?? sum;
}

/// <summary>What an adapter has at one place of the stream.</summary>
public abstract class StreamPart
{
    /// <summary>The weights that are saved, by the end of their names.</summary>
    public abstract IEnumerable<(string Name, Weight Weight)> State { get; }

    /// <summary>Draws the weights as the method starts.</summary>
    public abstract void Initialize(Generator generator, Device device);

    /// <summary>Brings loaded or drawn weights into the form that is computed with.</summary>
    public virtual void Prepare()
    {
    }

    /// <summary>Brings trained weights into the form that is saved.</summary>
    public virtual void Settle()
    {
    }
}

/// <summary>A part that maps hidden states to hidden states.</summary>
public abstract class HiddenPart : StreamPart
{
    /// <summary>x: the states of the tokens of <paramref name="run"/>, [n, width].</summary>
    public abstract Tensor Forward(Tensor x, ForwardBatch batch, AdapterRun run);
}

/// <summary>
/// A part where a block adds to the stream. Three steps, so that several can be composed: what goes in, what comes out, how it
/// joins the stream.
/// </summary>
public abstract class ResidualPart : StreamPart
{
    /// <summary>What goes in for the block's h [n, hidden], and what its skip connection carries.</summary>
    public abstract ResidualInput Enter(Tensor h, in ResidualCall call);

    /// <summary>The part's own result, skip connection included: [n, hidden].</summary>
    public abstract Tensor Forward(in ResidualInput input, in ResidualCall call);

    /// <summary>The part's own result without its skip connection and gate: [n, hidden].</summary>
    public abstract Tensor Up(in ResidualInput input, in ResidualCall call);

    /// <summary>The new stream from the adapted h and from what the block had computed.</summary>
    public abstract Tensor Leave(Tensor adapted, Tensor h, in ResidualCall call);
}

/// <summary>What goes into a part [n, hidden], and what its skip connection carries; a parallel adapter has none.</summary>
/// <param name="X">What goes in.</param>
/// <param name="Skip">What the skip connection carries.</param>
/// <param name="Block">What the block had computed, for parts that ask for it.</param>
public readonly record struct ResidualInput(Tensor X, Tensor? Skip, Tensor? Block = null);
