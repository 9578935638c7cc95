using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>A table of vectors by token id. Two may share one table.</summary>
public sealed class Embedding(int count, int width, Weight? tied = null) : Site
{
    public readonly Weight weight = tied ?? new(count, width);

    public int Count { get; } = count;

    public int Width { get; } = width;

    /// <summary>
    /// What its model multiplies a vector by when it looks it up. transformers does so inside of the table for some, and then not for vectors
    /// that come from elsewhere, such as a prompt's.
    /// </summary>
    public double LookupScale { get; init; } = 1;

    public override Weight Weight => weight;

    /// <summary>x: ids [n]; the result is [n, width].</summary>
    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias) => weight.index_select(0, x);
}

/// <summary>Root-mean-square norm over the last dimension, computed in float32: <see href="https://arxiv.org/abs/1910.07467"/>.</summary>
/// <param name="width">Length of the vectors.</param>
/// <param name="eps">Added to the mean square.</param>
/// <param name="offset">The factor is 1 + weight, applied in float32, as in Gemma.</param>
public sealed class RmsNorm(int width, double eps, bool offset = false) : Site
{
    private static readonly long[] Last = [-1];

    public readonly Weight weight = new(width);
    private readonly KeptScalar _eps = new KeptScalar(eps);

    public double Eps { get; } = eps;

    /// <summary>Whether the factor is 1 + weight.</summary>
    public bool HasOffset { get; } = offset;

    public override Weight Weight => weight;

    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        var wide = x.to(ScalarType.Float32);
        var scale = wide.mul(wide).mean(Last, keepdim: true).add_(_eps).rsqrt_(); // [n, 1]
        if (HasOffset)
        {
            return wide.mul(scale).mul(weight.to(ScalarType.Float32).add(TensorArithmetic.One)).to(x.dtype).MoveToOuterDisposeScope();
        }

        return wide.mul(scale).to(x.dtype).mul(weight).MoveToOuterDisposeScope(); // [n, width]
    }
}

/// <summary>Layer norm over the last dimension: <see href="https://arxiv.org/abs/1607.06450"/>. The bias may be absent.</summary>
public sealed class LayerNorm(int width, double eps, bool hasBias = true) : Site
{
    private readonly long[] _shape = [width];

    public readonly Weight weight = new(width);
    public readonly Weight? bias = hasBias ? new(width) : null;

    public double Eps { get; } = eps;

    public override Weight Weight => weight;

    public override Weight? Bias => bias;

    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias) => F.layer_norm(x, _shape, weight, bias, Eps); // [n, width]
}
