using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lokr;

/// <summary>ΔW = s·kron(w1, w2) at a projection; each factor is a matrix or a product of low rank.</summary>
internal sealed class LokrProjection : WeightDelta
{
    private readonly Weight[] _w1; // (l, m), or (l, r) and (r, m)
    private readonly Weight[] _w2; // (k, n), or (k, r) and (r, n)
    private readonly Scalar _scale;
    private readonly LokrConfig _config;

    public LokrProjection(LokrConfig config, Projection site)
    {
        var r = Adapters.TargetModules.ByPattern(config.RankPattern, site.Path, config.R);
        _scale = (Adapters.TargetModules.ByPattern(config.AlphaPattern, site.Path, config.Alpha) / r).ToScalar();
        _config = config;
        var (m, n) = Factors(site.InFeatures, config.DecomposeFactor);
        var (l, k) = Factors(site.OutFeatures, config.DecomposeFactor);
        _w1 = Factor(l, m, config.DecomposeBoth && r < Math.Max(l, m) / 2.0 ? r : null);
        _w2 = Factor(k, n, r < Math.Max(k, n) / 2.0 ? r : null);
    }

    public override IEnumerable<(string Name, Weight Weight)> State => Names("lokr_w1", _w1).Concat(Names("lokr_w2", _w2));

    protected override (double Share, bool Scales) RankDropout => (_config.RankDropout, _config.RankDropoutScale);

    protected override double ModuleDropout => _config.ModuleDropout;

    public override Tensor DeltaWeight(Projection site) => kron(Product(_w1), Product(_w2)).mul(_scale);

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        foreach (var (_, weight) in State)
        {
            weight.Kaiming(weight.Shape[1], generator, device);
        }

        switch (_config.InitWeights.Name)
        {
            case "true":
                _w1[0].Zeros(device);
                break;
            case "lycoris":
                _w2[^1].Zeros(device);
                break;
        }
    }

    /// <summary>The two divisors of a width: the given factor where it divides, else the pair nearest to its root.</summary>
    internal static (int Small, int Large) Factors(int width, int factor)
    {
        if (factor > 0 && width % factor == 0)
        {
            return (factor, width / factor);
        }

        var limit = factor == -1 ? width : factor;
        var small = 1;
        for (var divisor = 2; divisor <= limit && divisor + (width / divisor) <= small + (width / small); divisor++)
        {
            if (width % divisor == 0)
            {
                small = divisor;
            }
        }

        return (Math.Min(small, width / small), Math.Max(small, width / small));
    }

    private static Weight[] Factor(int rows, int columns, int? r) => r is { } rank
        ? [new Weight(rows, rank) { Trainable = true }, new Weight(rank, columns) { Trainable = true }]
        : [new Weight(rows, columns) { Trainable = true }];

    private static IEnumerable<(string, Weight)> Names(string name, Weight[] factor) =>
        factor is [var whole] ? [(name, whole)] : [($"{name}_a", factor[0]), ($"{name}_b", factor[1])];

    private static Tensor Product(Weight[] factor) => factor is [var whole] ? whole.Value : factor[0].Value.mm(factor[1].Value);
}
