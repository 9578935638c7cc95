using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Hira;

/// <summary>
/// At an embedding: row i gains W[i] ∘ (B·A[:, i]). A starts at zero here, B is drawn. PEFT adds it behind the factor by which a model multiplies what it
/// looks up, so it is divided by that here.
/// </summary>
internal sealed class HiraEmbedding(HiraConfig config, Embedding embedding) : AdditiveSiteAdapter
{
    private readonly Weight hira_embedding_A = new(config.R, embedding.Count) { Trainable = true };
    private readonly Weight hira_embedding_B = new(embedding.Width, config.R) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [(nameof(hira_embedding_A), hira_embedding_A), (nameof(hira_embedding_B), hira_embedding_B)];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var frozen = call.Site.Frozen(x); // [n, width]
        var low = hira_embedding_A.Value.t().index_select(0, x).to(frozen.dtype); // [n, r]
        return Scaled(frozen.mul(F.linear(low, hira_embedding_B.Value.to(frozen.dtype)))).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        hira_embedding_A.Normal(config.InitWeights.Name == "false" ? 1 : 0, generator, device);
        hira_embedding_B.Normal(1, generator, device);
    }

    public override Tensor Merge(Site site, Tensor weight)
    {
        var wide = weight.to(ScalarType.Float32);
        return wide.Plus(Scaled(wide.mul(hira_embedding_B.Value.mm(hira_embedding_A.Value).t()))); // [count, width]
    }

    private Tensor Scaled(Tensor change) => embedding.LookupScale == 1 ? change : change.Times(1 / embedding.LookupScale);
}
