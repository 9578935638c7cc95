using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>LoRA at an embedding: row i gains s·B·A[:, i]. A starts at zero here, B is drawn.</summary>
internal sealed class LoraEmbedding(LoraConfig config, Embedding site, int r, double scale) : AdditiveSiteAdapter
{
    private readonly Weight lora_embedding_A = new(r, site.Count) { Trainable = true };
    private readonly Weight lora_embedding_B = new(site.Width, r) { Trainable = true };
    private readonly Scalar _scale = scale.ToScalar();

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [(nameof(lora_embedding_A), lora_embedding_A), (nameof(lora_embedding_B), lora_embedding_B)];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var dtype = call.Site.Weight.Value.dtype;
        var low = lora_embedding_A.Value.t().index_select(0, x).mul(_scale).to(dtype); // [n, r]
        return F.linear(low, lora_embedding_B.Value.to(dtype)).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        var a = config.InitLoraWeights == LoraInit.Random ? randn(r, lora_embedding_A.Shape[1], generator: generator) : zeros(r, lora_embedding_A.Shape[1]);
        lora_embedding_A.Set(a.to(device));
        lora_embedding_B.Set(randn(lora_embedding_B.Shape[0], r, generator: generator).to(device));
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        weight.to(ScalarType.Float32).Plus(lora_embedding_B.Value.mm(lora_embedding_A.Value).t().mul(_scale)); // [count, width]
}
