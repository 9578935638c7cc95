using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>A part that adds a linear function of the input, mostly of low rank: ΔW is never made but for merging.</summary>
internal abstract class LinearDelta : AdditiveSiteAdapter
{
    /// <summary>ΔW x: [n, out] for x [n, in], in the type of x.</summary>
    protected abstract Tensor Apply(Tensor x, Projection site);

    /// <summary>Chance that an input is dropped in training.</summary>
    protected virtual double DropoutShare => 0;

    public sealed override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        return Apply(Dropout.Apply(x, DropoutShare, call.Batch.Dropout), (Projection)call.Site).MoveToOuterDisposeScope();
    }

    // ΔW is what becomes of the unit vectors.
    public override Tensor Merge(Site site, Tensor weight)
    {
        var projection = (Projection)site;
        var unit = eye(projection.InFeatures, device: weight.device);
        return Native.TensorArithmetic.Plus(weight.to(ScalarType.Float32), Apply(unit, projection).t()); // [out, in]
    }
}
