using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>A part that adds a whole matrix ΔW to the weight of its projection, however it is made.</summary>
internal abstract class WeightDelta : AdditiveSiteAdapter
{
    /// <summary>ΔW [out, in] in float32, with gradients.</summary>
    public abstract Tensor DeltaWeight(Projection site);

    /// <summary>Chance that an input of ΔW is dropped in training.</summary>
    protected virtual double DropoutShare => 0;

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var delta = DeltaWeight((Projection)call.Site).to(x.dtype);
        return F.linear(Dropout.Apply(x, DropoutShare, call.Batch.Dropout), delta).MoveToOuterDisposeScope(); // [n, out]
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        Native.TensorArithmetic.Plus(weight.to(ScalarType.Float32), DeltaWeight((Projection)site));
}
