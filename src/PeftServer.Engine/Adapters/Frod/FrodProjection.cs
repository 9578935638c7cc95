using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Frod;

/// <summary>y += U(S + L)Vᵀx − Wx at a projection. U follows from V and the frozen weight.</summary>
internal sealed class FrodProjection : AdditiveSiteAdapter
{
    private readonly FrodConfig _config;
    private readonly SharedBasis _basis;
    private readonly Weight frod_lambda_l; // (in)
    private readonly Weight frod_lambda_s_values; // (places)
    private readonly Weight _left; // U: (out, in)

    private FrodProjection(FrodConfig config, SharedBasis basis, Projection site)
    {
        (_config, _basis) = (config, basis);
        frod_lambda_l = new Weight(site.InFeatures) { Trainable = true };
        frod_lambda_s_values = new Weight(basis.Places) { Trainable = true };
        _left = new Weight(site.OutFeatures, site.InFeatures);
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [(nameof(frod_lambda_l), frod_lambda_l), (nameof(frod_lambda_s_values), frod_lambda_s_values)];

    public override IEnumerable<Weight> Derived => [_left];

    public static MethodParts Create(FrodConfig config, IReadOnlyList<Site> sites)
    {
        var bases = new SharedBases(config, [.. sites.Select(TargetedConfig.AsProjection)]);
        return new([.. sites.Select(site => new FrodProjection(config, bases.Of((Projection)site), (Projection)site))], bases);
    }

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var dropped = Dropout.Apply(x, _config.FrodDropout, call.Batch.Dropout);
        var frozen = F.linear(dropped, ((Projection)call.Site).DenseWeight()); // [n, out]
        return Apply(dropped).Minus(frozen).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        var (_, lengths) = Decompose((Projection)site);
        frod_lambda_l.Set(lengths.to(device));
        frod_lambda_s_values.Normal(_config.InitWeights ? 0 : 0.1, generator, device);
        if (!_config.InitWeights)
        {
            frod_lambda_l.Set(lengths.Plus(randn(lengths.shape, generator: generator).Times(0.1)).to(device));
        }
    }

    public override void Prepare(Site site) => _left.Set(Decompose((Projection)site).Left.to(site.Weight.Value.device));

    public override Tensor Merge(Site site, Tensor weight) => Apply(eye(frod_lambda_l.Shape[0], device: weight.device)).t(); // [out, in]

    /// <summary>U(S + L)Vᵀx: [n, out].</summary>
    private Tensor Apply(Tensor x)
    {
        var z = x.mm(_basis.V.Value.to(x.dtype)); // [n, in]
        var scaled = z.mul(frod_lambda_l.Value.to(x.dtype));
        var (rows, columns) = (_basis.Indices.Value.select(0, 0), _basis.Indices.Value.select(0, 1));
        var moved = z.index_select(1, columns).mul(frod_lambda_s_values.Value.to(x.dtype)); // [n, places]
        return F.linear(scaled.index_add(1, rows, moved, TensorArithmetic.One), _left.Value.to(x.dtype));
    }

    /// <summary>The columns of WV⁻ᵀ: their directions [out, in] and lengths [in].</summary>
    private (Tensor Left, Tensor Lengths) Decompose(Projection site)
    {
        var weight = site.DenseWeight().to(ScalarType.Float64).cpu();
        var coordinates = linalg.solve(_basis.V.Value.to(ScalarType.Float64).cpu(), weight.t()).t(); // [out, in]
        var lengths = linalg.vector_norm(coordinates, ord: 2, dims: [0]);
        var safe = lengths.AtLeast(1e-12);
        return (coordinates.div(safe).to(ScalarType.Float32), lengths.to(ScalarType.Float32));
    }
}
