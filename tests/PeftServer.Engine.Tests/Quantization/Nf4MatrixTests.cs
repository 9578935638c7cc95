using System.Text.Json;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Quantization;

/// <summary>Codes, maxima and decoded numbers as bitsandbytes wrote them.</summary>
public sealed class Nf4MatrixTests
{
    private static readonly string Folder = Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "quantized", "nf4");

    public static TheoryData<string, int, bool> Cases
    {
        get
        {
            using var cases = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Folder, "cases.json")));
            return [.. cases.RootElement.GetProperty("cases").EnumerateArray().Select(entry => new TheoryDataRow<string, int, bool>(
                entry.GetProperty("name").GetString()!, entry.GetProperty("blocksize").GetInt32(), entry.GetProperty("double_quant").GetBoolean()))];
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Quantize_ThenDecode_GivesBitsandbytesNumbers(string name, int blockSize, bool doubleQuantized)
    {
        using var scope = NewDisposeScope();
        using var file = SafetensorsFile.Open(Path.Combine(Folder, "cases.safetensors"));
        var weight = file.Tensor($"{name}.weight");
        using var packed = Nf4Matrix.Quantize(weight, blockSize);

        var count = weight.numel();
        var expected = file.Tensor($"{name}.packed").view(-1).data<byte>().ToArray();
        var codes = packed.Codes.data<byte>().ToArray();
        if (count % 2 == 1)
        {
            (codes[^1], expected[^1]) = ((byte)(codes[^1] & 0xF0), (byte)(expected[^1] & 0xF0)); // the last half means nothing
        }

        codes.ShouldBe(expected);
        if (!doubleQuantized)
        {
            packed.AbsMax.data<float>().ToArray().ShouldBe(file.Tensor($"{name}.absmax").view(-1).data<float>().ToArray());
        }

        var maxima = file.Tensor(doubleQuantized ? $"{name}.absmax_float32" : $"{name}.absmax").view(-1).clone();
        using var decoded = new Nf4Matrix(packed.Codes.clone(), maxima, packed.Rows, packed.Columns, ScalarType.Float32, blockSize);
        decoded.Decode().Minus(file.Tensor($"{name}.dequant_float32")).abs().max().item<float>().ShouldBe(0);
    }

    [Fact]
    public void Quantize_ABlockOfZeros_DecodesToZeros()
    {
        using var scope = NewDisposeScope();
        using var packed = Nf4Matrix.Quantize(zeros(2, 64));
        packed.Decode().abs().max().item<float>().ShouldBe(0);
    }
}
