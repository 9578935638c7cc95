using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Training;

public sealed class AdamW8BitTests
{
    private const double Beta1 = 0.9, Beta2 = 0.999, Eps = 1e-8, Rate = 1e-2, Decay = 0.1;

    [Theory]
    [InlineData(true, 127, -0.9929688)]
    [InlineData(false, 255, 0.9964844)]
    public void Table_Of256_RisesFromFineToCoarse(bool isSigned, int above, double end)
    {
        using var table = AdamW8Bit.Table(isSigned);
        var values = table.data<float>().ToArray();

        values.Length.ShouldBe(256);
        values.ShouldBe(values.Order());
        values.Count(value => value > 0).ShouldBe(isSigned ? 128 : 255);
        values[isSigned ? 0 : 254].ShouldBe((float)end, 1e-6f);
        values[above].ShouldBe(isSigned ? 0 : 1); // as many below zero as fit
    }

    /// <summary>Three steps against the same formulas value by value; 5000 values are 19 blocks and a part of one.</summary>
    [Fact]
    public void Step_OfAWideWeight_IsTheBlockWiseFormula()
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(3);
        var start = randn(5000, generator: generator).data<float>().ToArray();
        var weight = new Weight(5000) { Trainable = true, Path = "w" };
        weight.Set(tensor(start));
        weight.Value.requires_grad = true;
        using var optimizer = new AdamW8Bit([new ParameterGroup([weight], 1, Decay)], Beta1, Beta2, Eps);
        var (signed, unsigned) = (AdamW8Bit.Table(true).data<float>().ToArray(), AdamW8Bit.Table(false).data<float>().ToArray());
        var (mean, square, expected) = (new double[5000], new double[5000], Array.ConvertAll(start, value => (double)value));
        for (var step = 1; step <= 3; step++)
        {
            var gradient = randn(5000, generator: generator);
            weight.Value.grad!.copy_(gradient);
            optimizer.Step(Rate);

            var g = gradient.data<float>().ToArray();
            var (correction1, correction2) = (1 - Math.Pow(Beta1, step), Math.Sqrt(1 - Math.Pow(Beta2, step)));
            for (var i = 0; i < 5000; i++)
            {
                mean[i] = (Beta1 * mean[i]) + ((1 - Beta1) * g[i]);
                square[i] = (Beta2 * square[i]) + ((1 - Beta2) * g[i] * g[i]);
                expected[i] = (expected[i] - (Rate * correction2 / correction1 * mean[i] / (Math.Sqrt(square[i]) + (correction2 * Eps)))) * (1 - (Rate * Decay));
            }

            Quantise(mean, signed);
            Quantise(square, unsigned);
            var differences = weight.Value.data<float>().ToArray().Select((value, i) => Math.Abs(value - expected[i])).ToList();
            differences.Average().ShouldBeLessThan(1e-5);
            differences.Count(difference => difference > 1e-3).ShouldBeLessThan(10); // a value between two entries may round either way
        }

        weight.Unload();
    }

    [Fact]
    public void Step_OfASmallWeight_IsAdamWs()
    {
        using var scope = NewDisposeScope();
        var (narrow, wide) = (new Weight(100) { Trainable = true, Path = "w" }, new Weight(100) { Trainable = true, Path = "w" });
        foreach (var weight in new[] { narrow, wide })
        {
            weight.Set(ones(100));
            weight.Value.requires_grad = true;
        }

        using var ours = new AdamW8Bit([new ParameterGroup([narrow], 1, 0)], Beta1, Beta2, Eps);
        using var plain = new AdamW([new ParameterGroup([wide], 1, 0)], Beta1, Beta2, Eps);
        using var generator = new Generator(1);
        for (var step = 0; step < 4; step++)
        {
            var gradient = randn(100, generator: generator);
            narrow.Value.grad!.copy_(gradient);
            wide.Value.grad!.copy_(gradient);
            ours.Step(Rate);
            plain.Step(Rate);
        }

        narrow.Value.allclose(wide.Value, 1e-5, 1e-6).ShouldBeTrue();
        narrow.Unload();
        wide.Unload();
    }

    /// <summary>
    /// Twelve steps beside a transcription of bitsandbytes' kernels (tests/Goldens/adamw8bit.py): of a weight whose moments are coded, with gradients over seven powers of ten, a
    /// block without any and one of lost signs, and of one whose moments stay wide.
    /// </summary>
    [Theory]
    [InlineData("narrow")]
    [InlineData("wide")]
    public void Step_ByStep_IsBitsandbytes(string name)
    {
        using var scope = NewDisposeScope();
        using var file = SafetensorsFile.Open(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "adamw8bit", "case.safetensors"));
        var (gradients, after) = (file.Tensor($"{name}.gradients"), file.Tensor($"{name}.after")); // [steps, n]
        var weight = new Weight(after.size(1)) { Trainable = true, Path = "w" };
        weight.Set(file.Tensor($"{name}.start").clone());
        weight.Value.requires_grad = true;
        using var optimizer = new AdamW8Bit([new ParameterGroup([weight], 1, Decay)], Beta1, Beta2, Eps);
        for (var step = 0; step < after.size(0); step++)
        {
            weight.Value.grad!.copy_(gradients[step]);
            optimizer.Step(Rate);
            weight.Value.sub(after[step]).abs().max().item<float>().ShouldBeLessThan(1e-5f * after[step].abs().max().item<float>(), $"step {step + 1}");
        }

        if (name == "narrow")
        {
            var state = optimizer.State.ToDictionary(entry => entry.Name, entry => entry.Tensor);
            foreach (var (ours, theirs) in new[] { ("exp_avg", "first"), ("exp_avg_sq", "second") })
            {
                var largest = file.Tensor($"{theirs}_max");
                var hasSome = largest.gt(TensorArithmetic.Zero).repeat_interleave(AdamW8Bit.BlockSize).narrow(0, 0, after.size(1)); // codes of a block of zeros say nothing
                var codes = state[$"{ours}.w"].flatten().narrow(0, 0, after.size(1)).to(ScalarType.Int32);
                codes.sub(file.Tensor(theirs).to(ScalarType.Int32)).mul(hasSome).ne(TensorArithmetic.Zero).sum().item<long>().ShouldBe(0, theirs);
                state[$"{ours}_max.w"].flatten().sub(largest).abs().max().item<float>().ShouldBeLessThan(1e-4f * largest.max().item<float>());
            }
        }

        weight.Unload();
    }

    private static void Quantise(double[] values, float[] table)
    {
        for (var start = 0; start < values.Length; start += AdamW8Bit.BlockSize)
        {
            var block = values.AsSpan(start, Math.Min(AdamW8Bit.BlockSize, values.Length - start));
            var largest = 0.0;
            foreach (var value in block)
            {
                largest = Math.Max(largest, Math.Abs(value));
            }

            for (var i = 0; i < block.Length; i++)
            {
                var relative = block[i] / largest;
                block[i] = table.MinBy(entry => Math.Abs(entry - relative)) * largest;
            }
        }
    }

    /// <summary>The table of double quantization is the one that the first moment is coded with.</summary>
    [Fact]
    public void Table_Signed_IsTheOneThatBitsandbytesWrites()
    {
        using var scope = NewDisposeScope();
        using var file = SafetensorsFile.Open(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "quantized", "nf4", "cases.safetensors"));
        var expected = file.Tensor("nested_quant_map").data<float>().ToArray();

        var table = AdamW8Bit.Table(isSigned: true).data<float>().ToArray();

        table.Length.ShouldBe(256);
        table.Zip(expected).Max(pair => Math.Abs(pair.First - pair.Second)).ShouldBeLessThan(1e-7f);
    }
}
