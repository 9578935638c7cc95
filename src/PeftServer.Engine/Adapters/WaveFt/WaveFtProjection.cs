using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.WaveFt;

/// <summary>ΔW = s·idwt(S) at a projection: S is four quarters, of means and of three kinds of differences.</summary>
internal sealed class WaveFtProjection : WeightDelta
{
    private readonly WaveFtConfig _config;
    private readonly RandomPlaces _places;
    private readonly Scalar _scale;
    private readonly Weight _filters; // (low and high, 1, length)
    private readonly Weight waveft_spectrum;

    public WaveFtProjection(WaveFtConfig config, Projection site, int count)
    {
        _config = config;
        _scale = config.Scaling.ToScalar();
        _places = new RandomPlaces(site, count, config.RandomLocSeed, "n_frequency");
        _filters = new Weight(2, 1, Wavelets.Length(config.WaveletFamily)) { Path = $"{site.Path}.filters" };
        waveft_spectrum = new Weight(count) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(waveft_spectrum), waveft_spectrum)];

    public override IEnumerable<Weight> Derived => [_places.Indices, _filters];

    public override Tensor DeltaWeight(Projection site)
    {
        var spectrum = _places.Scatter(waveft_spectrum.Value.to(ScalarType.Float32)); // [out, in]
        return (_config.UseIdwt ? Synthesize(spectrum) : spectrum).mul(_scale);
    }

    public override void Prepare(Site site)
    {
        var device = site.Weight.Value.device;
        _places.Draw(device);
        using var scope = NewDisposeScope();
        _filters.Set(Wavelets.Filters(_config.WaveletFamily).to(device));
    }

    public override void Initialize(Site site, Generator generator) =>
        waveft_spectrum.Normal(_config.InitWeights ? 0 : 1, generator, site.Weight.Value.device);

    /// <summary>
    /// One level of synthesis, along the columns of S and then along its rows. Longer filters give fewer values than they get, so S is padded all
    /// around, and once more at its end where a side is odd.
    /// </summary>
    private Tensor Synthesize(Tensor spectrum)
    {
        var (rows, columns) = (spectrum.size(0), spectrum.size(1));
        var (above, height) = Padded(rows);
        var (left, width) = Padded(columns);
        var (h, w) = (height / 2, width / 2);
        var padded = F.pad(spectrum, [left, width - columns - left, above, height - rows - above]); // [2h, 2w]
        var quarters = padded.view(2, h, 2, w); // the lower ones hold high frequencies along rows, the right ones along columns
        var tall = Along(quarters.permute(0, 3, 2, 1).reshape(2 * w, 2, h)).view(2, w, -1); // [low and high along rows, w, out]
        return Along(tall.permute(2, 0, 1)).narrow(0, 0, rows).narrow(1, 0, columns); // [out, in]
    }

    /// <summary>Where a side begins among its padding, and its length with it.</summary>
    private (long Before, long Size) Padded(long side)
    {
        var size = side + _filters.Shape[2] - 2;
        size += size % 2;
        return ((size - side) / 2, size);
    }

    /// <summary>x [n, low and high, k] put together: [n, 2k + 2 - length].</summary>
    private Tensor Along(Tensor x)
    {
        var edge = _filters.Shape[2] - 2;
        return F.conv_transpose1d(x, _filters.Value, stride: 2).squeeze(1).narrow(1, edge, (2 * x.size(2)) - edge);
    }
}
