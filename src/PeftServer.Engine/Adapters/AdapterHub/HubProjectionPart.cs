using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// What LoRA and its kin do at a projection, in two steps so that several can be composed: what they make of the input (or of what
/// another made of it), and how that joins the projection's result.
/// </summary>
internal abstract class HubProjectionPart : SiteAdapter
{
    /// <summary>What becomes of x [n, in], or of the state that another adapter left; rows or one row for all.</summary>
    public abstract Tensor Transform(Tensor? state, Tensor x, in SiteCall call);

    /// <summary>The projection's y [n, out] and a state together.</summary>
    public abstract Tensor Combine(Tensor y, Tensor state, in SiteCall call);

    public sealed override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        return Combine(call.Next(x), Transform(null, x, call), call).MoveToOuterDisposeScope(); // [n, out]
    }

    /// <summary>The gate for every token, [n, k], or null where there is none.</summary>
    protected static Tensor? Gate(DenseLinear? gate, Tensor x, in SiteCall call) =>
        gate is null ? null : SequenceMeans.Spread(gate.Forward(x).sigmoid(), call.Batch, call.Run);
}
