using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Ia3;

/// <summary>y = l ∘ (Wx + b), or W(l ∘ x) + b at a feed-forward module.</summary>
internal sealed class Ia3Projection : SiteAdapter
{
    private readonly bool _feedforward;
    private readonly bool _init;
    private readonly Weight ia3_l; // (out, 1), or (1, in)

    public Ia3Projection(Ia3Config config, Projection site)
    {
        _feedforward = config.FeedforwardModules!.Matches(site.Path);
        _init = config.InitIa3Weights;
        ia3_l = _feedforward ? new Weight(1, site.InFeatures) { Trainable = true } : new Weight(site.OutFeatures, 1) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(ia3_l), ia3_l)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var scale = ia3_l.Value.flatten().to(x.dtype);
        return (_feedforward ? call.Next(x.mul(scale)) : call.Next(x).mul(scale)).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        ia3_l.Ones(device);
        if (!_init)
        {
            ia3_l.Normal(1, generator, device);
        }
    }

    public override Tensor Merge(Site site, Tensor weight) => weight.to(ScalarType.Float32).mul(ia3_l.Value);

    public override Tensor? MergeBias(Site site, Tensor? bias) => _feedforward ? bias : bias?.to(ScalarType.Float32).mul(ia3_l.Value.flatten());
}
