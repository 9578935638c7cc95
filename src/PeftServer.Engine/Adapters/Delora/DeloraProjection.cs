using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Delora;

/// <summary>y += λ/r · B̂ Â (x ∘ ‖W‖) at a projection, with rows of A and columns of B of length 1.</summary>
internal sealed class DeloraProjection : LinearDelta
{
    private static readonly Scalar LeastSquare = 1e-8.ToScalar();

    private readonly DeloraConfig _config;
    private readonly double _start;
    private readonly Scalar _perRank;
    private readonly Weight delora_A; // (r, in)
    private readonly Weight delora_B; // (out, r)
    private readonly Weight delora_lambda = new(1) { Trainable = true };
    private readonly Weight delora_w_norm; // (in)

    public DeloraProjection(DeloraConfig config, Projection site)
    {
        _config = config;
        var r = Adapters.TargetModules.ByPattern(config.RankPattern, site.Path, config.R);
        _start = Adapters.TargetModules.ByPattern(config.LambdaPattern, site.Path, config.DeloraLambda);
        _perRank = (1.0 / r).ToScalar();
        delora_A = new Weight(r, site.InFeatures) { Trainable = true };
        delora_B = new Weight(site.OutFeatures, r) { Trainable = true };
        delora_w_norm = new Weight(site.InFeatures) { IsBuffer = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [(nameof(delora_A), delora_A), (nameof(delora_B), delora_B), (nameof(delora_lambda), delora_lambda), (nameof(delora_w_norm), delora_w_norm)];

    protected override double DropoutShare => _config.ModuleDropout;

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var lengths = Length(delora_A.Value, 1).mul(Length(delora_B.Value, 0)); // [r]
        var strength = delora_lambda.Value.mul(_perRank).div(lengths).to(x.dtype); // [r]
        var low = F.linear(x.mul(delora_w_norm.Value.to(x.dtype)), delora_A.Value.to(x.dtype)).mul(strength); // [n, r]
        return F.linear(low, delora_B.Value.to(x.dtype)); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        delora_A.Kaiming(delora_A.Shape[1], generator, device);
        delora_B.Kaiming(delora_B.Shape[1], generator, device);
        if (_config.InitWeights)
        {
            delora_B.Zeros(device);
        }

        delora_lambda.Fill(_start, device);
        delora_w_norm.Set(SquareSum(((Projection)site).DenseWeight().to(ScalarType.Float32), 0).sqrt());
    }

    // At least 1e-4; clamped before the root, so that zeros have a gradient of zero.
    private static Tensor Length(Tensor x, long dimension) => SquareSum(x, dimension).clamp_min(LeastSquare).sqrt();

    private static Tensor SquareSum(Tensor x, long dimension) => x.mul(x).sum(dimension);
}
