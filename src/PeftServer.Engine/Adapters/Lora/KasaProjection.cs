using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>KaSA: y += s·B(σ ∘ Ax) on a base without its r smallest singular directions.</summary>
internal sealed class KasaProjection : LoraProjection
{
    private readonly Weight lora_diag; // (r)

    public KasaProjection(LoraConfig config, Projection site)
        : base(config, site)
    {
        lora_diag = new Weight(Rank) { Trainable = true };
        if (Rank >= Math.Min(site.InFeatures, site.OutFeatures))
        {
            throw new AdapterException("r", $"KaSA needs r below {Math.Min(site.InFeatures, site.OutFeatures)} at {site.Path}: something of the weight must stay.");
        }
    }

    public override IEnumerable<(string Name, Weight Weight)> State => base.State.Append((nameof(lora_diag), lora_diag));

    protected override Tensor Low(Tensor x, in SiteCall call) => base.Low(x, call).mul(lora_diag.Value.to(x.dtype));

    protected override Tensor Product() => LowRank.ScaleColumns(B.to(ScalarType.Float32), lora_diag.Value.to(ScalarType.Float32)).mm(A.to(ScalarType.Float32));

    public override void Initialize(Site site, Generator generator)
    {
        base.Initialize(site, generator);
        lora_diag.Normal(1, generator, site.Weight.Value.device);
        TakeFromBase((Projection)site);
    }

    /// <summary>β·Σσ² + γ·(‖BᵀB − I‖ + ‖AAᵀ − I‖).</summary>
    public override Tensor Regularization()
    {
        using var scope = NewDisposeScope();
        var (settings, diagonal) = (Config.KasaConfig!, lora_diag.Value);
        var squares = diagonal.mul(diagonal).sum().Times(settings.Beta);
        var distance = LowRank.DistanceFromUnit(B.t().mm(B)).Plus(LowRank.DistanceFromUnit(A.mm(A.t()))).Times(settings.Gamma);
        return squares.Plus(distance).MoveToOuterDisposeScope();
    }

    protected override (Tensor A, Tensor B) TakeFromBase(Projection site)
    {
        var (u, s, vt) = LowRank.Svd(site.DenseWeight());
        var kept = s.size(0) - Rank;
        Shift!.Set(LowRank.ScaleColumns(u.narrow(1, kept, Rank), s.narrow(0, kept, Rank)).Times(1 / Scale), vt.narrow(0, kept, Rank));
        return (A, B);
    }
}
