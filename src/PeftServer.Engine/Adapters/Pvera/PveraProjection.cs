using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Pvera;

/// <summary>y += b ∘ B z at a projection, z drawn around the mean half of d ∘ Ax in training and mostly that mean otherwise.</summary>
internal sealed class PveraProjection(PveraConfig config, PveraProjections shared, Projection projection) : AdditiveSiteAdapter
{
    private static readonly Scalar Half = 0.5.ToScalar();

    private readonly Weight pvera_lambda_b = new(projection.OutFeatures) { Trainable = true };
    private readonly Weight pvera_lambda_d = new(2 * config.R) { Trainable = true };
    private readonly Weight _drawn = new(5056) { Path = $"{projection.Path}.generator" }; // the state of torch's generator on a CPU

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(pvera_lambda_b), pvera_lambda_b), (nameof(pvera_lambda_d), pvera_lambda_d)];

    public override IEnumerable<Weight> Derived => [_drawn];

    internal override IEnumerable<(string Name, Weight Weight)> Progress => config.GeneratorSeed is null ? [] : [("generator", _drawn)];

    public static MethodParts Create(PveraConfig config, IReadOnlyList<Site> sites)
    {
        var projections = sites.Select(TargetedConfig.AsProjection).ToList();
        var shared = new PveraProjections(config, projections);
        return new([.. projections.Select(site => new PveraProjection(config, shared, site))], shared);
    }

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        x = Dropout.Apply(x, config.PveraDropout, call.Batch.Dropout);
        var both = F.linear(x, shared.A(projection.InFeatures).to(x.dtype)).mul(pvera_lambda_d.Value.to(x.dtype)); // [n, 2r]
        var z = both.narrow(1, 0, config.R);
        if (call.Batch.Dropout is not null || config.SampleAtInference)
        {
            z = z.Plus(Noise(z, call).mul(both.narrow(1, config.R, config.R).mul(Half).exp()));
        }

        return F.linear(z, shared.B(projection.OutFeatures).to(x.dtype)).mul(pvera_lambda_b.Value.to(x.dtype)).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Prepare(Site site)
    {
        if (config.GeneratorSeed is { } seed)
        {
            using var draws = new Generator((ulong)seed);
            _drawn.Set(draws.get_state());
        }
    }

    /// <summary>Of the module's own generator, where it has one; of the step's; or, in inference that has no seed, of any.</summary>
    private Tensor Noise(Tensor z, in SiteCall call)
    {
        if (config.GeneratorSeed is not null)
        {
            // Its own generator goes on with every draw: a layer that runs again takes what was drawn the first time.
            return GradientCheckpoints.AreOn ? call.Batch.Once((this, call.Run.Start), () => OwnNoise(z)) : OwnNoise(z);
        }

        using var fresh = call.Batch.Dropout is null ? new Generator((ulong)Random.Shared.NextInt64()) : null;
        return randn(z.shape, generator: fresh ?? call.Batch.Dropout).to(z.dtype, z.device); // [n, r]
    }

    private Tensor OwnNoise(Tensor z)
    {
        using var draws = new Generator(0);
        draws.set_state(_drawn.Value);
        var noise = randn(z.shape, generator: draws).to(z.dtype, z.device); // [n, r]
        _drawn.Set(draws.get_state());
        return noise;
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        pvera_lambda_d.Fill(config.DInitial, device);
        pvera_lambda_b.Normal(config.InitWeights ? 0 : 1, generator, device);
    }

    public override Tensor Merge(Site site, Tensor weight)
    {
        var low = shared.A(projection.InFeatures).mul(pvera_lambda_d.Value.unsqueeze(1)).narrow(0, 0, config.R); // [r, in]
        return weight.to(ScalarType.Float32).Plus(shared.B(projection.OutFeatures).mul(pvera_lambda_b.Value.unsqueeze(1)).mm(low));
    }
}
