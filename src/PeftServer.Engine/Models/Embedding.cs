using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>A table of vectors by token id.</summary>
public sealed class Embedding(int count, int width) : Site
{
    public readonly Weight weight = new(count, width);

    public int Count { get; } = count;

    public int Width { get; } = width;

    public override Weight Weight => weight;

    /// <summary>x: ids [n]; the result is [n, width].</summary>
    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias) => weight.index_select(0, x);
}

/// <summary>Root-mean-square norm over the last dimension, computed in float32: <see href="https://arxiv.org/abs/1910.07467"/>.</summary>
public sealed class RmsNorm(int width, double eps) : Site
{
    private static readonly long[] Last = [-1];

    public readonly Weight weight = new(width);
    private readonly Scalar _eps = eps.ToScalar();

    public double Eps { get; } = eps;

    public override Weight Weight => weight;

    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        var wide = x.to(ScalarType.Float32);
        var scale = wide.mul(wide).mean(Last, keepdim: true).add_(_eps).rsqrt_(); // [n, 1]
        return wide.mul(scale).to(x.dtype).mul(weight).MoveToOuterDisposeScope(); // [n, width]
    }
}
