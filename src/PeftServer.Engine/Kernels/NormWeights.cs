using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Kernels;

/// <summary>What a norm of rows computes.</summary>
internal enum NormForm
{
    /// <summary>x / rms(x) · weight: Llama.</summary>
    Rms,

    /// <summary>x / rms(x) · (1 + weight), in float32 to the end: Gemma.</summary>
    OffsetRms,

    /// <summary>(x − mean) / deviation · weight, + bias where there is one: Cohere.</summary>
    Layer,

    /// <summary>x itself, where a layer has no norm: before OLMo 2's.</summary>
    None,
}

/// <summary>A norm as the kernels take it. The weight and the bias belong to the model.</summary>
internal sealed class NormWeights : IDisposable
{
    public static readonly NormWeights None = new(NormForm.None, null, null, 0);

    private NormWeights(NormForm form, Tensor? weight, Tensor? bias, double eps) => (Form, Weight, Bias, Eps) = (form, weight, bias, eps);

    public NormForm Form { get; }

    public Tensor? Weight { get; }

    public Tensor? Bias { get; }

    public double Eps { get; }

    /// <summary>What the normalized rows are multiplied by: the weight, or 1 + weight in float32. Null without a norm.</summary>
    public Tensor? Factor { get; private init; }

    public static NormWeights Of(Site? site) => site switch
    {
        null => None,
        RmsNorm { HasOffset: false } rms => new(NormForm.Rms, rms.weight.Value, null, rms.Eps) { Factor = rms.weight.Value.alias().DetachFromDisposeScope() },
        RmsNorm rms => new(NormForm.OffsetRms, rms.weight.Value, null, rms.Eps) { Factor = Offset(rms.weight.Value) },
        LayerNorm layer => new(NormForm.Layer, layer.weight.Value, layer.bias?.Value, layer.Eps) { Factor = layer.weight.Value.alias().DetachFromDisposeScope() },
        _ => throw new NotSupportedException($"The kernels have no {site.GetType().Name}."),
    };

    /// <summary>Room for what a norm of <paramref name="rows"/> rows notes of each: its factor, and for <see cref="NormForm.Layer"/> its mean.</summary>
    public Tensor NewStats(long rows, Device device) =>
        empty([Form is NormForm.Layer ? 2 : 1, rows], dtype: ScalarType.Float32, device: device);

    public void Dispose() => Factor?.Dispose();

    private static Tensor Offset(Tensor weight)
    {
        using var scope = NewDisposeScope();
        return weight.to(ScalarType.Float32).add(TensorArithmetic.One).DetachFromDisposeScope();
    }
}
