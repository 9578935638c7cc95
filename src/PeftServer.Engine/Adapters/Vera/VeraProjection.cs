using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Vera;

/// <summary>y += b ∘ B(d ∘ Ax) at a projection.</summary>
internal sealed class VeraProjection(VeraConfig config, VeraProjections shared, Projection projection) : LinearDelta
{
    private readonly Weight vera_lambda_b = new(projection.OutFeatures) { Trainable = true };
    private readonly Weight vera_lambda_d = new(config.R) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(vera_lambda_b), vera_lambda_b), (nameof(vera_lambda_d), vera_lambda_d)];

    protected override double DropoutShare => config.VeraDropout;

    public static MethodParts Create(VeraConfig config, IReadOnlyList<Site> sites)
    {
        var projections = sites.Select(TargetedConfig.AsProjection).ToList();
        var shared = new VeraProjections(config, projections);
        return new([.. projections.Select(site => new VeraProjection(config, shared, site))], shared);
    }

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var low = F.linear(x, shared.A(site.InFeatures).to(x.dtype)).mul(vera_lambda_d.Value.to(x.dtype)); // [n, r]
        return F.linear(low, shared.B(site.OutFeatures).to(x.dtype)).mul(vera_lambda_b.Value.to(x.dtype)); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        vera_lambda_d.Fill(config.DInitial, device);
        vera_lambda_b.Normal(config.InitWeights ? 0 : 1, generator, device);
    }
}
