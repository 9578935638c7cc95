using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Oft;

/// <summary>y = W(xR) at a projection.</summary>
internal sealed class OftProjection(OftConfig config, Projection projection) : SiteAdapter
{
    private readonly OftRotation _rotation = new(config, projection.InFeatures);

    public override IEnumerable<(string Name, Weight Weight)> State => [("oft_R.weight", _rotation.Weight)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        return call.Next(_rotation.Turn(x)).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator) => _rotation.Initialize(generator, site.Weight.Value.device);

    // x R Wᵀ = x (W Rᵀ)ᵀ.
    public override Tensor Merge(Site site, Tensor weight) => _rotation.TurnBack(weight.to(ScalarType.Float32));
}

/// <summary>y = E(x)R at an embedding.</summary>
internal sealed class OftEmbedding(OftConfig config, Embedding embedding) : SiteAdapter
{
    private readonly OftRotation _rotation = new(config, embedding.Width);

    public override IEnumerable<(string Name, Weight Weight)> State => [("oft_embedding_R.weight", _rotation.Weight)];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        return _rotation.Turn(call.Next(x)).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Site site, Generator generator) => _rotation.Initialize(generator, site.Weight.Value.device);

    public override Tensor Merge(Site site, Tensor weight) => _rotation.Turn(weight.to(ScalarType.Float32));
}
