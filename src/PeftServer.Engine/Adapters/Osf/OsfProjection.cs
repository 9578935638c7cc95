using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Osf;

/// <summary>W′ = U₁S₁V₁ᵀ + U₂S₂V₂ᵀ: the first part is the frozen weight's, the second trains, its gradients kept orthogonal to the first.</summary>
internal sealed class OsfProjection : WeightMap
{
    private readonly bool _startsAtRandom;
    private readonly Weight U_low; // (out, k)
    private readonly Weight S_low; // (k)
    private readonly Weight V_low; // (k, in)
    private readonly Weight _left; // (out, r)
    private readonly Weight _values; // (r)
    private readonly Weight _right; // (r, in)

    public OsfProjection(OsfConfig config, Projection site)
    {
        _startsAtRandom = config.InitWeights is false;
        var high = config.RankAt(site);
        var low = Math.Min(site.InFeatures, site.OutFeatures) - high;
        U_low = new Weight(site.OutFeatures, low) { Trainable = true };
        S_low = new Weight(low) { Trainable = true };
        V_low = new Weight(low, site.InFeatures) { Trainable = true };
        (_left, _values, _right) = (new Weight(site.OutFeatures, high), new Weight(high), new Weight(high, site.InFeatures));
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [("osf_svd_params.U_low", U_low), ("osf_svd_params.S_low", S_low), ("osf_svd_params.V_low", V_low)];

    public override IEnumerable<Weight> Derived => [_left, _values, _right];

    public override Tensor Map(Tensor weight)
    {
        var high = LowRank.ScaleColumns(_left.Value, _values.Value).mm(_right.Value);
        var left = Apart(U_low.Value, part => _left.Value.mm(_left.Value.t().mm(part)));
        var right = Apart(V_low.Value, part => part.mm(_right.Value.t()).mm(_right.Value));
        return high.Plus(LowRank.ScaleColumns(left, S_low.Value).mm(right)); // [out, in]
    }

    public override void Initialize(Site site, Generator generator)
    {
        if (_startsAtRandom)
        {
            foreach (var (_, weight) in State)
            {
                weight.Normal(1, generator, site.Weight.Value.device);
            }

            return;
        }

        var (u, s, vt) = LowRank.Svd(((Projection)site).DenseWeight());
        var (high, low) = (_values.Shape[0], S_low.Shape[0]);
        U_low.Set(u.narrow(1, high, low).clone());
        S_low.Set(s.narrow(0, high, low).clone());
        V_low.Set(vt.narrow(0, high, low).clone());
    }

    public override void Prepare(Site site)
    {
        var (u, s, vt) = LowRank.Svd(((Projection)site).DenseWeight());
        var high = _values.Shape[0];
        _left.Set(u.narrow(1, 0, high).clone());
        _values.Set(s.narrow(0, 0, high).clone());
        _right.Set(vt.narrow(0, 0, high).clone());
    }

    /// <summary>The matrix itself, with a gradient that has nothing of what <paramref name="projection"/> finds in it.</summary>
    private static Tensor Apart(Tensor matrix, Func<Tensor, Tensor> projection)
    {
        if (!matrix.requires_grad)
        {
            return matrix;
        }

        var inside = projection(matrix);
        return matrix.Minus(inside).Plus(inside.detach());
    }
}
