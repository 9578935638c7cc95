using PeftServer.Engine.Native;

namespace PeftServer.Engine.Quantization;

/// <summary>
/// 8-bit floats (e4m3: largest 448, no infinities) with one scale to a row: weight ≈ codes · scale, scale = largest absolute value / 448.
/// <see href="https://arxiv.org/abs/2209.05433"/>.
/// </summary>
public sealed class Fp8Matrix : PackedMatrix
{
    /// <summary>TorchSharp's enumeration ends before it; libtorch knows it by this number.</summary>
    public const ScalarType E4M3 = (ScalarType)24;

    public const float Largest = 448;

    /// <summary>Takes over the tensors: codes e4m3 [rows, columns], scale float32 [rows].</summary>
    public Fp8Matrix(Tensor codes, Tensor scale, ScalarType dtype)
        : base((int)codes.size(0), (int)codes.size(1), dtype)
    {
        (Codes, Scale) = (codes.DetachFromDisposeScope(), scale.DetachFromDisposeScope());
    }

    public override BaseQuantization Kind => BaseQuantization.Fp8;

    public Tensor Codes { get; }

    public Tensor Scale { get; }

    public static Fp8Matrix Quantize(Tensor weight)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var (codes, scale) = Rowwise(weight);
        return new Fp8Matrix(codes.MoveToOuterDisposeScope(), scale.MoveToOuterDisposeScope(), weight.dtype);
    }

    /// <summary>x [n, K] as codes and the scale of every row [n]; a row of zeros has the scale 1.</summary>
    internal static (Tensor Codes, Tensor Scale) Rowwise(Tensor x)
    {
        using var scope = NewDisposeScope();
        using var inverse = (1f / Largest).ToScalar();
        using var low = (-Largest).ToScalar();
        using var high = Largest.ToScalar();
        var wide = x.to(ScalarType.Float32);
        var scale = wide.abs().amax([1]).mul_(inverse); // [n]
        scale.masked_fill_(scale.eq(TensorArithmetic.Zero), TensorArithmetic.One);
        var codes = wide.div(scale.unsqueeze(1)).clamp_(low, high).to(E4M3); // [n, K]
        return (codes.MoveToOuterDisposeScope(), scale.MoveToOuterDisposeScope());
    }

    /// <inheritdoc/>
    public override Tensor Decode()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        return Codes.to(ScalarType.Float32).mul_(Scale.unsqueeze(1)).to(Dtype).MoveToOuterDisposeScope(); // [rows, columns]
    }

    protected override void Release()
    {
        Codes.Dispose();
        Scale.Dispose();
    }
}
