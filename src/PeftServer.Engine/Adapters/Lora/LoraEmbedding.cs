using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>LoRA at an embedding: row i gains s·B·A[:, i]. A starts at zero here, B is drawn.</summary>
internal class LoraEmbedding : AdditiveSiteAdapter
{
    private readonly LoraConfig _config;
    private readonly Weight lora_embedding_A; // (r, count)
    private readonly Weight lora_embedding_B; // (width, r)
    private readonly KeptScalar _scale;

    public LoraEmbedding(LoraConfig config, Embedding site)
    {
        if (config.InitLoraWeights.NeedsPlainShapes && !config.InitLoraWeights.IsFromData)
        {
            throw new AdapterException("init_lora_weights", $"'{config.InitLoraWeights.Name}' is for linear layers; {site.Path} is an embedding.");
        }

        var (r, scale) = config.RankAt(site.Path);
        (_config, _scale) = (config, new KeptScalar(scale));
        lora_embedding_A = new Weight(r, site.Count) { Trainable = true };
        lora_embedding_B = new Weight(site.Width, r) { Trainable = true };
    }

    /// <summary>A [r, count].</summary>
    internal Tensor A => lora_embedding_A.Value;

    /// <summary>B [width, r].</summary>
    internal Tensor B => lora_embedding_B.Value;

    internal Scalar Scale => _scale;

    internal long Rank => lora_embedding_A.Shape[0];

    /// <summary>Whether a tied head follows.</summary>
    internal bool HasTiedHead { get; set; }

    public override bool MergesIntoTied => HasTiedHead;

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [(nameof(lora_embedding_A), lora_embedding_A), (nameof(lora_embedding_B), lora_embedding_B)];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var dtype = call.Site.Weight.Value.dtype;
        var low = A.t().index_select(0, x).mul(_scale).to(dtype); // [n, r]
        return F.linear(low, B.to(dtype)).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        lora_embedding_A.Normal(_config.InitLoraWeights == LoraInit.Random ? 1 : 0, generator, device);
        lora_embedding_B.Normal(1, generator, device);
    }

    public override Tensor Merge(Site site, Tensor weight) => weight.to(ScalarType.Float32).Plus(B.mm(A).t().mul(_scale)); // [count, width]
}

/// <summary>DoRA at an embedding: the norms are those of its columns.</summary>
internal sealed class DoraEmbedding(LoraConfig config, Embedding site) : LoraEmbedding(config, site)
{
    private readonly Weight lora_magnitude_vector = new(site.Width) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> State => base.State.Append((nameof(lora_magnitude_vector), lora_magnitude_vector));

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var frozen = call.Site.Frozen(x); // [n, width]
        var factor = Factor(Norms(call.Site)).to(frozen.dtype); // [width]
        return frozen.mul(factor.Plus(-1)).Plus(base.Delta(x, call).mul(factor)).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        base.Initialize(site, generator);
        lora_magnitude_vector.Set(Norms(site));
    }

    public override Tensor Merge(Site site, Tensor weight)
    {
        var direction = base.Merge(site, weight); // [count, width]
        return direction.mul(Factor(ColumnNorms(direction)));
    }

    private Tensor Factor(Tensor norms) => lora_magnitude_vector.Value.div(norms);

    private Tensor Norms(Site site)
    {
        using var frozen = no_grad();
        return ColumnNorms(base.Merge(site, site.Weight.Value));
    }

    private static Tensor ColumnNorms(Tensor table) => linalg.vector_norm(table, ord: 2, dims: [0]);
}

/// <summary>
/// The head that shares its weight with an adapted embedding, under <c>ensure_weight_tying</c>: it gains the same change, s·AᵀBᵀ. As in PEFT its
/// factors are weights of their own with gradients of their own, in the memory of the embedding's: what a step does to either happens to both.
/// </summary>
internal sealed class TiedLoraHead(LoraEmbedding embedding, Embedding site) : AdditiveSiteAdapter
{
    private readonly Weight lora_A = new(embedding.Rank, site.Width) { Trainable = true };
    private readonly Weight lora_B = new(site.Count, embedding.Rank) { Trainable = true };
    private readonly Weight _before_A = new(embedding.Rank, site.Width); // what both were after the last step
    private readonly Weight _before_B = new(site.Count, embedding.Rank);

    public override IEnumerable<(string Name, Weight Weight)> State => [("lora_A.weight", lora_A), ("lora_B.weight", lora_B)];

    public override IEnumerable<Weight> Derived => [_before_A, _before_B];

    public override bool MergesIntoTied => true;

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var low = F.linear(x, lora_A.Value.to(x.dtype)).mul(embedding.Scale); // [n, r]
        return F.linear(low, lora_B.Value.to(x.dtype)).MoveToOuterDisposeScope(); // [n, count]
    }

    public override void Initialize(Site site, Generator generator) => Follow();

    public override void Prepare(Site site)
    {
        Follow();
        Resume();
    }

    internal override void Resume()
    {
        _before_A.Set(lora_A.Value.detach().clone());
        _before_B.Set(lora_B.Value.detach().clone());
    }

    private void Follow()
    {
        lora_A.Set(embedding.B.detach().t().contiguous());
        lora_B.Set(embedding.A.detach().t().contiguous());
    }

    /// <summary>Brings together what a step did to the embedding's factors and to the head's.</summary>
    internal void Join()
    {
        Join(lora_A.Value, embedding.B, _before_A.Value);
        Join(lora_B.Value, embedding.A, _before_B.Value);
    }

    public override Tensor Merge(Site site, Tensor weight) => embedding.Merge(site, weight);

    private static void Join(Tensor own, Tensor other, Tensor before)
    {
        before.copy_(other.t().Plus(own.Minus(before)));
        own.copy_(before);
        other.copy_(before.t());
    }
}
