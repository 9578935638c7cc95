using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdaLora;

/// <summary>y += s·B(E ∘ Ax) at a projection. It also keeps how much each weight has mattered while it trains.</summary>
internal sealed class AdaLoraProjection : LinearDelta
{
    private readonly AdaLoraConfig _config;
    private readonly KeptScalar _scale;
    private readonly Weight lora_A; // (r, in)
    private readonly Weight lora_B; // (out, r)
    private readonly Weight lora_E; // (r, 1)
    private readonly Weight _kept; // (r): 1 where a rank is on
    private readonly IReadOnlyList<TrackedWeight> _tracked;

    public AdaLoraProjection(AdaLoraConfig config, Projection site)
    {
        _config = config;
        var pattern = config.RankPattern?.GetValueOrDefault($"{site.Path}.lora_E");
        var r = pattern?.Count(on => on) ?? config.InitR;
        var alpha = Adapters.TargetModules.ByPattern(config.AlphaPattern, site.Path, config.LoraAlpha);
        _scale = new KeptScalar(alpha / (config.InitR + 1e-5)); // of the ranks it began with, whatever went since
        lora_A = new Weight(r, site.InFeatures) { Trainable = true };
        lora_B = new Weight(site.OutFeatures, r) { Trainable = true };
        lora_E = new Weight(r, 1) { Trainable = true };
        _kept = new Weight(r);
        _tracked = [new TrackedWeight(lora_A), new TrackedWeight(lora_B), new TrackedWeight(lora_E)];
    }

    public int Rank => (int)_kept.Shape[0];

    public Tensor A => lora_A.Value;

    public Tensor B => lora_B.Value;

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(lora_A), lora_A), (nameof(lora_B), lora_B), (nameof(lora_E), lora_E)];

    public override IEnumerable<Weight> Derived => [_kept, .. _tracked.SelectMany(weight => weight.State.Select(entry => entry.Weight))];

    internal override IEnumerable<(string Name, Weight Weight)> Progress =>
        [(nameof(_kept), _kept), .. _tracked.SelectMany((weight, i) => weight.State.Select(entry => ($"{i}.{entry.Name}", entry.Weight)))];

    protected override double DropoutShare => _config.LoraDropout;

    protected override Tensor Apply(Tensor x, Projection site)
    {
        var low = F.linear(x, A.mul(lora_E.Value).to(x.dtype)).mul(_scale); // [n, r]
        return F.linear(low, B.to(x.dtype)); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        lora_A.Normal(0.02, generator, device);
        lora_B.Normal(0.02, generator, device);
        lora_E.Normal(_config.InitLoraWeights == Lora.LoraInit.Default ? 0 : 1, generator, device);
    }

    public override void Prepare(Site site) => _kept.Ones(site.Weight.Value.device);

    /// <summary>Begins to keep how much each weight matters.</summary>
    public void Track()
    {
        foreach (var weight in _tracked)
        {
            weight.Reset();
        }
    }

    /// <summary>Takes in what this step says: the weights after it, the gradients from before it.</summary>
    public void Observe()
    {
        foreach (var weight in _tracked)
        {
            weight.Observe(_config.Beta1, _config.Beta2);
        }
    }

    /// <summary>How much each rank matters [r].</summary>
    public Tensor Scores()
    {
        var (a, b, e) = (_tracked[0].Score.mean([1]), _tracked[1].Score.mean([0]), _tracked[2].Score.flatten());
        return e.Plus(a.Plus(b));
    }

    /// <summary>Chooses the ranks that are on: [r], true where one is.</summary>
    public void Keep(Tensor on) => _kept.Set(on.to(ScalarType.Float32));

    /// <summary>Switches the others off.</summary>
    public void Mask() => lora_E.Value.mul_(_kept.Value.unsqueeze(1));

    /// <summary>Which ranks are on.</summary>
    public bool[] Pattern() => Array.ConvertAll(_kept.Value.data<float>().ToArray(), value => value != 0);

    /// <summary>The weights without what is off.</summary>
    public IEnumerable<(string Name, Tensor Value)> Cut()
    {
        var on = _kept.Value.nonzero().flatten();
        return [(nameof(lora_A), A.index_select(0, on)), (nameof(lora_B), B.index_select(1, on)), (nameof(lora_E), lora_E.Value.index_select(0, on))];
    }

    /// <summary>A weight and how much its entries matter: |w·g|, averaged over steps, and how much that wavers.</summary>
    private sealed class TrackedWeight(Weight weight)
    {
        private readonly Weight _importance = new([.. weight.Shape]);
        private readonly Weight _uncertainty = new([.. weight.Shape]);

        public IEnumerable<(string Name, Weight Weight)> State => [("importance", _importance), ("uncertainty", _uncertainty)];

        public Tensor Score => _importance.Value.mul(_uncertainty.Value);

        public void Reset()
        {
            _importance.Zeros(weight.Value.device);
            _uncertainty.Zeros(weight.Value.device);
        }

        public void Observe(double beta1, double beta2)
        {
            var now = weight.Value.mul(weight.Value.grad!).abs();
            _importance.Value.Scale(beta1).Add(now, 1 - beta1);
            _uncertainty.Value.Scale(beta2).Add(now.Minus(_importance.Value).abs(), 1 - beta2);
        }
    }
}
