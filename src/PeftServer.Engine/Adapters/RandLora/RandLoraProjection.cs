using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.RandLora;

/// <summary>y += s·(bases weighted by λ and γ)(x) at a projection.</summary>
internal sealed class RandLoraProjection : LinearDelta
{
    private readonly RandLoraConfig _config;
    private readonly RandLoraBases _shared;
    private readonly Scalar _scale;
    private readonly int _bases;
    private readonly Weight randlora_lambda; // (r, bases)
    private readonly Weight randlora_gamma; // (bases, min)

    private RandLoraProjection(RandLoraConfig config, RandLoraBases shared, Projection site)
    {
        (_config, _shared, _scale) = (config, shared, (config.RandloraAlpha / config.R).ToScalar());
        var least = Math.Min(site.InFeatures, site.OutFeatures);
        _bases = (least + config.R - 1) / config.R;
        randlora_lambda = new Weight(config.R, _bases) { Trainable = true };
        randlora_gamma = new Weight(_bases, least) { Trainable = true };
    }

    // PEFT writes the shared bases again under every module.
    public override IEnumerable<(string Name, Weight Weight)> State => _config.SaveProjection
        ? [(nameof(randlora_lambda), randlora_lambda), (nameof(randlora_gamma), randlora_gamma), ("randlora_A", _shared.A), ("randlora_B", _shared.B)]
        : [(nameof(randlora_lambda), randlora_lambda), (nameof(randlora_gamma), randlora_gamma)];

    protected override double DropoutShare => _config.RandloraDropout;

    public static MethodParts Create(RandLoraConfig config, IReadOnlyList<Site> sites)
    {
        var projections = sites.Select(TargetedConfig.AsProjection).ToList();
        var shared = new RandLoraBases(config, projections);
        return new([.. projections.Select(site => new RandLoraProjection(config, shared, site))], shared);
    }

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var (least, most) = (Math.Min(site.InFeatures, site.OutFeatures), Math.Max(site.InFeatures, site.OutFeatures));
        var narrow = _shared.A.Value.narrow(2, 0, least) // [r, 1, min]
            .mul(randlora_lambda.Value.unsqueeze(2)).mul(randlora_gamma.Value.unsqueeze(0)).flatten(0, 1).to(x.dtype); // [r·bases, min]
        // PEFT pairs row (rank, basis) of one side with column (basis, rank) of the other; files depend on it.
        var wide = _shared.B.Value.narrow(0, 0, most).narrow(1, 0, _bases).flatten(1).to(x.dtype); // [max, bases·r]
        return (least == site.InFeatures ? F.linear(F.linear(x, narrow), wide) : F.linear(F.linear(x, wide.t()), narrow.t())).mul(_scale); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        randlora_lambda.Normal(_config.InitWeights ? 0 : 1, generator, device);
        randlora_gamma.Fill(1.0 / randlora_gamma.Shape.Max(), device);
    }
}
