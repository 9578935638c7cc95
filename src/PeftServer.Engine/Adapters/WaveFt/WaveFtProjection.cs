using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.WaveFt;

/// <summary>ΔW = s·idwt(S) at a projection, with Haar's wavelet: S is four quarters, of means and of three kinds of differences.</summary>
internal sealed class WaveFtProjection : WeightDelta
{
    private static readonly Scalar Half = 0.5.ToScalar();

    private readonly WaveFtConfig _config;
    private readonly RandomPlaces _places;
    private readonly Scalar _scale;
    private readonly Weight waveft_spectrum;

    public WaveFtProjection(WaveFtConfig config, Projection site)
    {
        _config = config;
        _scale = config.Scaling.ToScalar();
        var count = Adapters.TargetModules.ByPattern(config.NFrequencyPattern, site.Path, config.NFrequency);
        _places = new RandomPlaces(site, count, config.RandomLocSeed, "n_frequency");
        waveft_spectrum = new Weight(count) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(waveft_spectrum), waveft_spectrum)];

    public override IEnumerable<Weight> Derived => [_places.Indices];

    public override Tensor DeltaWeight(Projection site)
    {
        var spectrum = _places.Scatter(waveft_spectrum.Value); // [out, in]
        return (_config.UseIdwt ? Synthesize(spectrum) : spectrum).mul(_scale);
    }

    public override void Prepare(Site site) => _places.Draw(site.Weight.Value.device);

    public override void Initialize(Site site, Generator generator) =>
        waveft_spectrum.Normal(_config.InitWeights ? 0 : 1, generator, site.Weight.Value.device);

    /// <summary>Haar's synthesis of one level; an odd side is padded at its end and cut again.</summary>
    private static Tensor Synthesize(Tensor spectrum)
    {
        var (rows, columns) = (spectrum.size(0), spectrum.size(1));
        var padded = F.pad(spectrum, [0, columns % 2, 0, rows % 2]);
        var (h, w) = (padded.size(0) / 2, padded.size(1) / 2);
        var mean = padded.narrow(0, 0, h).narrow(1, 0, w);
        var below = padded.narrow(0, 0, h).narrow(1, w, w); // differs between rows
        var beside = padded.narrow(0, h, h).narrow(1, 0, w); // differs between columns
        var across = padded.narrow(0, h, h).narrow(1, w, w);
        var (left, right) = (mean.Plus(beside), mean.Minus(beside));
        var (leftDown, rightDown) = (below.Plus(across), below.Minus(across));
        var top = stack([left.Plus(leftDown), right.Plus(rightDown)], 2).view(h, 2 * w);
        var bottom = stack([left.Minus(leftDown), right.Minus(rightDown)], 2).view(h, 2 * w);
        return stack([top, bottom], 1).view(2 * h, 2 * w).mul(Half).narrow(0, 0, rows).narrow(1, 0, columns);
    }
}
