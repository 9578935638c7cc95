using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Tests.Quantization;

public sealed class Fp8MatrixTests
{
    [Fact]
    public void Quantize_ThenDecode_IsWithinHalfAStepOfThreeBits()
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(5);
        var weight = randn(7, 96, generator: generator);
        using var packed = Fp8Matrix.Quantize(weight);

        var difference = packed.Decode().Minus(weight).abs();
        var step = weight.abs().mul(tensor(1f / 16)).Plus(packed.Scale.unsqueeze(1).mul(tensor(1f / 1024))); // relative 2⁻⁴; subnormal 2⁻¹⁰
        difference.le(step).all().item<bool>().ShouldBeTrue();
    }

    [Fact]
    public void Quantize_ARowOfZeros_DecodesToZeros()
    {
        using var scope = NewDisposeScope();
        using var packed = Fp8Matrix.Quantize(zeros(2, 64));
        packed.Decode().abs().max().item<float>().ShouldBe(0);
    }
}
