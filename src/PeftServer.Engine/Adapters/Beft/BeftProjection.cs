using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Beft;

/// <summary>y += b at a projection.</summary>
internal sealed class BeftProjection(BeftConfig config, Projection projection) : AdditiveSiteAdapter
{
    private readonly Weight beft_bias = new(1, projection.OutFeatures) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(beft_bias), beft_bias)];

    public override Tensor Delta(Tensor x, in SiteCall call) => beft_bias.Value.to(x.dtype).expand(x.size(0), -1);

    public override void Initialize(Site site, Generator generator) =>
        beft_bias.Normal(config.InitWeights ? 0 : 1, generator, site.Weight.Value.device);

    public override Tensor Merge(Site site, Tensor weight) => site.Bias is not null
        ? weight
        : throw new NotSupportedException($"{site.Path} has no bias, so an adapter of biases cannot be merged into it. Serve it unmerged.");

    public override Tensor? MergeBias(Site site, Tensor? bias) => bias?.to(ScalarType.Float32).Plus(beft_bias.Value.squeeze(0));
}
