using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Deft;

/// <summary>y += Q(sRx − rightᵀWx) at a projection, where Q and right come from P.</summary>
internal sealed class DeftProjection : AdditiveSiteAdapter
{
    private readonly DeftConfig _config;
    private readonly Scalar _scale;
    private readonly Weight deft_P; // (out, r)
    private readonly Weight? deft_R; // (r, in)

    public DeftProjection(DeftConfig config, Projection site)
    {
        _config = config;
        var r = Math.Min(config.R, site.OutFeatures);
        _scale = (config.Alpha is { } alpha ? (double)alpha / r : 1).ToScalar();
        deft_P = new Weight(site.OutFeatures, r) { Trainable = true };
        deft_R = config.Para ? null : new Weight(r, site.InFeatures) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        deft_R is null ? [(nameof(deft_P), deft_P)] : [(nameof(deft_P), deft_P), (nameof(deft_R), deft_R)];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var (q, right) = Span();
        var frozen = F.linear(x, ((Projection)call.Site).DenseWeight()).to(ScalarType.Float32); // [n, out]
        var low = frozen.mm(right).neg(); // [n, r]
        if (deft_R is not null)
        {
            var dropped = Dropout.Apply(x, _config.DeftDropout, call.Batch.Dropout).to(ScalarType.Float32);
            low = low.Plus(F.linear(dropped, deft_R.Value).mul(_scale));
        }

        return F.linear(low, q).to(x.dtype).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        deft_P.Normal(0.02, generator, device);
        if (deft_R is null)
        {
            return;
        }

        deft_R.Normal(0.02 * _config.InitScale, generator, device);
        if (_config.InitWeights)
        {
            deft_R.Set(Span().Right.t().mm(((Projection)site).DenseWeight().to(ScalarType.Float32)).div(_scale));
        }
    }

    public override Tensor Merge(Site site, Tensor weight)
    {
        var (q, right) = Span();
        var wide = weight.to(ScalarType.Float32);
        var low = right.t().mm(wide).neg(); // [r, in]
        return wide.Plus(q.mm(deft_R is null ? low : low.Plus(deft_R.Value.mul(_scale))));
    }

    private (Tensor Q, Tensor Right) Span()
    {
        if (_config.DecompositionMethod == "relu")
        {
            return (deft_P.Value.alias(), F.relu(deft_P.Value));
        }

        var (q, _) = linalg.qr(deft_P.Value);
        return (q, q);
    }
}
