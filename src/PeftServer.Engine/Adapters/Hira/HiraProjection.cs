using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Hira;

/// <summary>ΔW = W ∘ (BA) at a projection.</summary>
internal sealed class HiraProjection : WeightDelta
{
    private readonly HiraConfig _config;
    private readonly Weight hira_A; // (r, in)
    private readonly Weight hira_B; // (out, r)

    public HiraProjection(HiraConfig config, Projection site)
    {
        _config = config;
        hira_A = new Weight(config.R, site.InFeatures) { Trainable = true };
        hira_B = new Weight(site.OutFeatures, config.R) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(hira_A), hira_A), (nameof(hira_B), hira_B)];

    protected override double DropoutShare => _config.HiraDropout;

    public override Tensor DeltaWeight(Projection site) =>
        site.DenseWeight().to(ScalarType.Float32).mul(hira_B.Value.mm(hira_A.Value));

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        if (_config.InitWeights.Name == "gaussian")
        {
            hira_A.Normal(1.0 / hira_A.Shape[0], generator, device);
        }
        else
        {
            hira_A.Kaiming(hira_A.Shape[1], generator, device);
        }

        hira_B.Kaiming(hira_B.Shape[1], generator, device);
        if (_config.InitWeights.Name != "false")
        {
            hira_B.Zeros(device);
        }
    }
}
