using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>A norm of its own for each head, all in one list: StableLM's. Without bias.</summary>
internal sealed class HeadNorms(int heads, int width, double eps) : Module
{
    public readonly IReadOnlyList<LayerNorm> norms = [.. Enumerable.Range(0, heads).Select(_ => new LayerNorm(width, eps, hasBias: false))];

    /// <summary>x and the result are [n, H, D].</summary>
    public Tensor Forward(Tensor x, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return stack(norms.Select((norm, head) => norm.Forward(x.select(1, head), batch)), 1).MoveToOuterDisposeScope();
    }
}

/// <summary>A norm of its own for each head, the factors of all heads in one table: Cohere's. Computed in float32.</summary>
internal sealed class HeadTableNorm(int heads, int width, double eps) : Site
{
    private readonly long[] _shape = [width];

    public readonly Weight weight = new(heads, width);

    public override Weight Weight => weight;

    /// <summary>x and the result are [n, H, D].</summary>
    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        return F.layer_norm(x.to(ScalarType.Float32), _shape, eps: eps).mul(weight.to(ScalarType.Float32)).to(x.dtype).MoveToOuterDisposeScope();
    }
}
