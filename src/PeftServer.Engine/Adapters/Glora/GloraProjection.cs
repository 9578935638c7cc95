using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Glora;

/// <summary>W′ and b′ at a projection, by five paths.</summary>
internal sealed class GloraProjection : WeightMap
{
    private readonly GloraConfig _config;
    private readonly GloraPath _a;
    private readonly GloraPath _b;
    private readonly GloraPath _c;
    private readonly GloraPath _d;
    private readonly GloraPath _e;

    public GloraProjection(GloraConfig config, Projection site)
    {
        _config = config;
        var (rows, columns, biased) = (site.OutFeatures, site.InFeatures, site.Bias is not null);
        _a = new GloraPath(config.ConfigAB, rows, columns, config.R, matrix: true);
        _b = new GloraPath(config.ConfigAB, rows, columns, config.R, matrix: true);
        _c = new GloraPath(biased ? config.ConfigC : "none", columns, 1, config.R, matrix: true);
        _d = new GloraPath(biased ? config.ConfigDE : "none", rows, 1, config.R, matrix: false);
        _e = new GloraPath(biased ? config.ConfigDE : "none", rows, 1, config.R, matrix: false);
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        _a.State("glora_A").Concat(_b.State("glora_B")).Concat(_c.State("glora_C")).Concat(_d.State("glora_D")).Concat(_e.State("glora_E"));

    public override Tensor Map(Tensor weight) => weight.Plus(weight.mul(_a.Value())).Plus(_b.Value());

    public override Tensor? MapBias(Tensor weight, Tensor? bias)
    {
        if (bias is null)
        {
            return null;
        }

        var wide = bias.to(ScalarType.Float32);
        return wide.Plus(wide.mul(_d.Value())).Plus(_e.Value()).Plus(weight.mm(_c.Value()).squeeze(-1));
    }

    public override void Initialize(Site site, Generator generator)
    {
        foreach (var path in new[] { _a, _b, _c, _d, _e })
        {
            path.Initialize(_config.InitWeights, generator, site.Weight.Value.device);
        }
    }
}
