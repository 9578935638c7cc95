using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// DoRA: W′ = m ∘ V / ‖V‖ with V = W + s·BA; the norm is of each row and gets no gradient, the bias stays as it is.
/// </summary>
internal sealed class DoraProjection(LoraConfig config, Projection site) : LoraProjection(config, site)
{
    private readonly Weight lora_magnitude_vector = new(site.OutFeatures) { Trainable = true };
    private readonly Weight _norm = new(site.OutFeatures);
    private (Tensor A, Tensor B)? _normOf;

    public override IEnumerable<(string Name, Weight Weight)> State => base.State.Append((nameof(lora_magnitude_vector), lora_magnitude_vector));

    public override IEnumerable<Weight> Derived => base.Derived.Append(_norm);

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var projection = (Projection)call.Site;
        var factor = lora_magnitude_vector.Value.to(ScalarType.Float32).div(Norm(projection)).to(x.dtype); // [out]
        var dropped = Dropout.Apply(x, Config.LoraDropout, call.Batch.Dropout);
        var frozen = F.linear(dropped, projection.DenseWeight()); // [n, out]
        frozen = Shift is null ? frozen : frozen.Minus(Shift.Apply(dropped));
        var update = High(Low(dropped, call).mul(KeptScale)); // [n, out]
        var delta = frozen.mul(factor.Plus(-1)).Plus(update.mul(factor));
        return (Shift is null ? delta : delta.Minus(Shift.Apply(x))).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
        base.Initialize(site, generator);
        lora_magnitude_vector.Set(RowNorms(base.Merge(site, ((Projection)site).DenseWeight())));
    }

    public override Tensor Merge(Site site, Tensor weight)
    {
        var direction = base.Merge(site, weight); // [out, in]
        return LowRank.ScaleRows(direction, lora_magnitude_vector.Value.div(RowNorms(direction)));
    }

    /// <summary>‖V‖ by rows. It is kept while A and B stay what they are: finding it reads the whole weight.</summary>
    private Tensor Norm(Projection site)
    {
        var trains = A.requires_grad;
        if (!trains && _normOf is { } of && ReferenceEquals(of.A, A) && ReferenceEquals(of.B, B))
        {
            return _norm.Value.alias();
        }

        using var frozen = no_grad();
        var norm = RowNorms(base.Merge(site, site.DenseWeight()));
        _normOf = trains ? null : (A, B);
        if (!trains)
        {
            _norm.Set(norm.clone());
        }

        return norm;
    }

    private static Tensor RowNorms(Tensor weight) => linalg.vector_norm(weight, ord: 2, dims: [1]);
}
