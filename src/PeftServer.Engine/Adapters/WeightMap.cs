using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>A part that replaces the weight of its projection by a function of it: W′ = f(W).</summary>
internal abstract class WeightMap : SiteAdapter
{
    /// <summary>W′ [out, in] of the frozen weight in float32, with gradients.</summary>
    public abstract Tensor Map(Tensor weight);

    /// <summary>The same in training, where a method may draw.</summary>
    protected virtual Tensor Map(Tensor weight, Generator draws) => Map(weight);

    /// <summary>The bias beside W′.</summary>
    public virtual Tensor? MapBias(Tensor weight, Tensor? bias) => bias;

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var projection = (Projection)call.Site;
        var weight = projection.DenseWeight().to(ScalarType.Float32);
        var bias = call.Parts.Take(call.Depth).OfType<TrainableBias>().LastOrDefault()?.Value ?? projection.Bias?.Value; // what trains below this part
        var mapped = call.Batch.Dropout is { } draws ? Map(weight, draws) : Map(weight);
        return F.linear(x, mapped.to(x.dtype), MapBias(weight, bias)?.to(x.dtype)).MoveToOuterDisposeScope(); // [n, out]
    }

    public override Tensor Merge(Site site, Tensor weight) => Map(weight.to(ScalarType.Float32));

    public override Tensor? MergeBias(Site site, Tensor? bias) => MapBias(((Projection)site).DenseWeight().to(ScalarType.Float32), bias);
}
