using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters;

/// <summary>A part that adds a whole matrix ΔW to the weight of its projection, however it is made.</summary>
internal abstract class WeightDelta : AdditiveSiteAdapter
{
    /// <summary>ΔW [out, in] in float32, with gradients.</summary>
    public abstract Tensor DeltaWeight(Projection site);

    /// <summary>Chance that an input of ΔW is dropped in training.</summary>
    protected virtual double DropoutShare => 0;

    /// <summary>Chance that an output of ΔW is dropped in training, and whether the others are scaled up by the share that stays.</summary>
    protected virtual (double Share, bool Scales) RankDropout => default;

    /// <summary>Chance that ΔW is left out of a forward pass in training.</summary>
    protected virtual double ModuleDropout => 0;

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var delta = Dropped(DeltaWeight((Projection)call.Site), call.Batch.Dropout).to(x.dtype);
        return F.linear(Dropout.Apply(x, DropoutShare, call.Batch.Dropout), delta).MoveToOuterDisposeScope(); // [n, out]
    }

    private Tensor Dropped(Tensor delta, Generator? draws)
    {
        if (draws is null)
        {
            return delta;
        }

        if (RankDropout.Share > 0)
        {
            using var share = RankDropout.Share.ToScalar();
            var kept = rand(delta.size(0), generator: draws).gt(share).to(delta.dtype, delta.device); // [out]
            delta = delta.mul((RankDropout.Scales ? kept.div(kept.mean().AtLeast(1.0 / kept.size(0))) : kept).unsqueeze(1));
        }

        // Zero times ΔW, so that there are gradients, if of zero, where every module is left out.
        return ModuleDropout > 0 && rand(1, generator: draws).item<float>() <= ModuleDropout ? delta.Times(0) : delta;
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        weight.to(ScalarType.Float32).Plus(DeltaWeight((Projection)site));
}
