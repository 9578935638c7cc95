using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.FourierFt;

/// <summary>ΔW = s·Re(ifft2(S)) at a projection; S holds the spectrum at places that a seed gives.</summary>
internal sealed class FourierFtProjection : WeightDelta
{
    private readonly FourierFtConfig _config;
    private readonly RandomPlaces _places;
    private readonly Scalar _scale;
    private readonly Weight fourierft_spectrum;

    public FourierFtProjection(FourierFtConfig config, Projection site)
    {
        _config = config;
        _scale = config.Scaling.ToScalar();
        var count = Adapters.TargetModules.ByPattern(config.NFrequencyPattern, site.Path, config.NFrequency);
        _places = new RandomPlaces(site, count, config.RandomLocSeed, "n_frequency");
        fourierft_spectrum = new Weight(count) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(fourierft_spectrum), fourierft_spectrum)];

    public override IEnumerable<Weight> Derived => [_places.Indices];

    public override Tensor DeltaWeight(Projection site) => fft.ifft2(_places.Scatter(fourierft_spectrum.Value)).real.mul(_scale);

    public override void Prepare(Site site) => _places.Draw(site.Weight.Value.device);

    public override void Initialize(Site site, Generator generator) =>
        fourierft_spectrum.Normal(_config.InitWeights ? 0 : 1, generator, site.Weight.Value.device);
}
