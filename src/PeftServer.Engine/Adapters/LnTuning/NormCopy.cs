using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.LnTuning;

/// <summary>A norm that trains: it starts as a copy and stands in for the frozen one.</summary>
internal sealed class NormCopy : SiteAdapter
{
    private readonly Weight weight;
    private readonly Weight? bias;

    public NormCopy(Site site)
    {
        weight = new Weight([.. site.Weight.Shape]) { Trainable = true };
        bias = site.Bias is { } frozen ? new Weight([.. frozen.Shape]) { Trainable = true } : null;
    }

    public override IEnumerable<(string Name, Weight Weight)> State => bias is null
        ? [("ln_tuning_layers.weight", weight)]
        : [("ln_tuning_layers.weight", weight), ("ln_tuning_layers.bias", bias)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        var frozen = call.Site.Weight.Value;
        return call.Site.Compute(x, weight.Value.to(frozen.dtype), bias?.Value.to(frozen.dtype));
    }

    public override void Initialize(Site site, Generator generator)
    {
        weight.Set(site.Weight.Value.to(ScalarType.Float32, copy: true));
        bias?.Set(site.Bias!.Value.to(ScalarType.Float32, copy: true));
    }

    public override Tensor Merge(Site site, Tensor weight) => this.weight.Value;

    public override Tensor? MergeBias(Site site, Tensor? bias) => this.bias?.Value;
}
