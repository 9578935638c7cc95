using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Psoft;

/// <summary>y += s·B(R − I)Ax at a projection. A and B follow from the frozen weight.</summary>
internal sealed class PsoftProjection : LinearDelta
{
    private readonly PsoftConfig _config;
    private readonly int _side;
    private readonly KeptScalar _scale;
    private readonly Weight weight; // (r(r-1)/2), or (r, r) where R is any matrix
    private readonly Weight? vector_a; // (r)
    private readonly Weight? vector_b; // (r)
    private readonly Weight _a; // (r, in)
    private readonly Weight _b; // (out, r)

    public PsoftProjection(PsoftConfig config, Projection site)
    {
        var least = Math.Min(site.InFeatures, site.OutFeatures);
        if (config.R > least)
        {
            throw new AdapterException("r", $"{config.R} is more than the {least} singular directions of {site.Path}.");
        }

        (_config, _side, _scale) = (config, config.R, new KeptScalar(config.PsoftAlpha / config.R));
        weight = config.PsoftOrth ? new Weight(_side * (_side - 1) / 2) { Trainable = true } : new Weight(_side, _side) { Trainable = true };
        vector_a = config.PsoftMagA ? new Weight(_side) { Trainable = true } : null;
        vector_b = config.PsoftMagB ? new Weight(_side) { Trainable = true } : null;
        (_a, _b) = (new Weight(_side, site.InFeatures), new Weight(site.OutFeatures, _side));
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            yield return ("psoft_R.weight", weight);
            if (vector_a is not null)
            {
                yield return ("psoft_R.vector_a", vector_a);
            }

            if (vector_b is not null)
            {
                yield return ("psoft_R.vector_b", vector_b);
            }
        }
    }

    public override IEnumerable<Weight> Derived => [_a, _b];

    protected override double DropoutShare => _config.PsoftDropout;

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var low = F.linear(x, _a.Value.to(x.dtype)); // [n, r]
        var turned = F.linear(low, Rotation().to(x.dtype)).Minus(low).mul(_scale);
        return F.linear(turned, _b.Value.to(x.dtype)); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        weight.Normal(_config.InitWeights ? 0 : 0.1, generator, device);
        if (!_config.PsoftOrth)
        {
            weight.Set(weight.Value.Plus(eye(_side, device: device)));
        }

        vector_a?.Ones(device);
        vector_b?.Ones(device);
    }

    public override void Prepare(Site site)
    {
        using var generator = new Generator((ulong)_config.RandomSeed);
        var frozen = ((Projection)site).DenseWeight().to(ScalarType.Float32);
        var (u, s, vt) = _config.PsoftSvd == "full" ? LowRank.Svd(frozen) : LowRank.RandomizedSvd(frozen, _side, _config.PsoftSvdLowrankNiter, generator);
        var values = s.narrow(0, 0, _side).Times(_side / _config.PsoftAlpha);
        var (left, right) = (u.narrow(1, 0, _side), vt.narrow(0, 0, _side));
        if (_config.AbSvdInit == "psoft_init")
        {
            _a.Set(right.clone());
            _b.Set(LowRank.ScaleColumns(left, values));
            return;
        }

        _a.Set(LowRank.ScaleRows(right, values.sqrt()));
        _b.Set(LowRank.ScaleColumns(left, values.sqrt()));
    }

    /// <summary>diag(b) R diag(a): [r, r].</summary>
    private Tensor Rotation()
    {
        var rotation = _config.PsoftOrth ? Orthogonal() : weight.Value;
        rotation = vector_b is null ? rotation : LowRank.ScaleRows(rotation, vector_b.Value);
        return vector_a is null ? rotation : LowRank.ScaleColumns(rotation, vector_a.Value);
    }

    private Tensor Orthogonal()
    {
        var skew = CayleyTransform.Skew(weight.Value.unsqueeze(0), _side); // [1, r, r]
        if (!_config.UseCayleyNeumann)
        {
            return CayleyTransform.Exact(skew.neg()).squeeze(0); // (I + Q)(I − Q)⁻¹
        }

        if (_config.CayleyNeumannEps is { } limit)
        {
            var norm = skew.norm();
            var factor = full_like(norm, limit.ToScalar()).div(norm.Plus(1e-12));
            skew = skew.mul(factor.AtMost(1));
        }

        return CayleyTransform.Neumann(skew, _config.NumCayleyNeumannTerms).squeeze(0);
    }
}
