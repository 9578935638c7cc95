using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Loha;

/// <summary>ΔW = s·(w1_a·w1_b) ∘ (w2_a·w2_b) at a projection.</summary>
internal sealed class LohaProjection : WeightDelta
{
    private readonly Weight hada_w1_a; // (out, r)
    private readonly Weight hada_w1_b; // (r, in)
    private readonly Weight hada_w2_a; // (out, r)
    private readonly Weight hada_w2_b; // (r, in)
    private readonly Scalar _scale;
    private readonly LohaConfig _config;

    public LohaProjection(LohaConfig config, Projection site)
    {
        var r = Adapters.TargetModules.ByPattern(config.RankPattern, site.Path, config.R);
        _scale = (Adapters.TargetModules.ByPattern(config.AlphaPattern, site.Path, config.Alpha) / r).ToScalar();
        _config = config;
        hada_w1_a = new Weight(site.OutFeatures, r) { Trainable = true };
        hada_w1_b = new Weight(r, site.InFeatures) { Trainable = true };
        hada_w2_a = new Weight(site.OutFeatures, r) { Trainable = true };
        hada_w2_b = new Weight(r, site.InFeatures) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [(nameof(hada_w1_a), hada_w1_a), (nameof(hada_w1_b), hada_w1_b), (nameof(hada_w2_a), hada_w2_a), (nameof(hada_w2_b), hada_w2_b)];

    protected override (double Share, bool Scales) RankDropout => (_config.RankDropout, true);

    protected override double ModuleDropout => _config.ModuleDropout;

    public override Tensor DeltaWeight(Projection site) =>
        hada_w1_a.Value.mm(hada_w1_b.Value).mul(hada_w2_a.Value.mm(hada_w2_b.Value)).mul(_scale);

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        foreach (var (_, weight) in State)
        {
            weight.Kaiming(weight.Shape[1], generator, device);
        }

        if (_config.InitWeights)
        {
            hada_w2_b.Zeros(device);
        }
    }
}
