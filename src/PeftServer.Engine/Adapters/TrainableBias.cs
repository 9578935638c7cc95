using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>The bias of a site that trains beside the method: PEFT's <c>bias</c> "all" or "NAME_only".</summary>
internal sealed class TrainableBias(Site site, bool adapted) : SiteAdapter
{
    private readonly Weight bias = new([.. site.Bias!.Shape]) { Trainable = true };

    public Tensor Value => bias.Value;

    public override IEnumerable<(string Name, Weight Weight)> State => [(adapted ? "base_layer.bias" : "bias", bias)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        var frozen = call.Site.Weight.Value;
        return call.Site.Compute(x, frozen, bias.Value.to(frozen.dtype));
    }

    public override void Initialize(Site site, Generator generator) => bias.Set(site.Bias!.Value.to(ScalarType.Float32, copy: true));

    public override Tensor Merge(Site site, Tensor weight) => weight;

    public override Tensor? MergeBias(Site site, Tensor? bias) => this.bias.Value;
}
