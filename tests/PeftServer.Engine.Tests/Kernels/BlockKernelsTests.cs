using PeftServer.Engine.Kernels;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Tests.Kernels;

/// <summary>Every kernel against its plain-tensor twin: those for CPUs in float32, those for GPUs in bfloat16 where there is one.</summary>
public sealed class BlockKernelsTests
{
    private const int Tokens = 37;
    private const int Hidden = 192;
    private static readonly HeadLayout Heads = new(4, 2, 64);

    public static TheoryData<string> Targets => ["cpu", "cuda:0"];

    [Theory]
    [MemberData(nameof(Targets))]
    public void AddRmsNorm_WithAndWithoutDelta_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        foreach (var delta in new[] { world.Random(Tokens, Hidden), null })
        {
            var (x, weight) = (world.Random(Tokens, Hidden), world.Random(Hidden));
            var (sum, normed, rstd) = (world.Empty(Tokens, Hidden), world.Empty(Tokens, Hidden + 64), world.Scales(Tokens));
            var (sum2, normed2, rstd2) = (world.Empty(Tokens, Hidden), world.Empty(Tokens, Hidden + 64), world.Scales(Tokens));

            world.Kernels.AddRmsNorm(x, delta, weight, 1e-5, delta is null ? null : sum, normed.narrow(1, 0, Hidden), rstd);
            world.Twin.AddRmsNorm(x, delta, weight, 1e-5, delta is null ? null : sum2, normed2.narrow(1, 0, Hidden), rstd2);

            world.ShouldAgree(normed.narrow(1, 0, Hidden), normed2.narrow(1, 0, Hidden));
            world.ShouldAgree(rstd, rstd2);
            if (delta is not null)
            {
                world.ShouldAgree(sum, sum2);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void RmsNormBackward_OverTheResidual_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        var (grad, x, weight) = (world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Random(Tokens, Hidden), world.Random(Hidden));
        var rstd = world.Scales(Tokens);
        world.Twin.AddRmsNorm(x, null, weight, 1e-5, null, world.Empty(Tokens, Hidden), rstd);
        var (residual, expected) = (world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Empty(Tokens, Hidden));
        world.Twin.RmsNormBackward(grad, x, weight, rstd, residual, expected);

        world.Kernels.RmsNormBackward(grad, x, weight, rstd, residual, residual);

        world.ShouldAgree(residual, expected);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void Rope_AndBack_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        var qkv = world.Random(Tokens, Heads.Width);
        var (expected, angles) = (qkv.clone(), world.Angles(Tokens, Heads.HeadDim / 2));
        world.Kernels.Rope(qkv, angles.cos(), angles.sin(), Heads);
        world.Twin.Rope(expected, angles.cos(), angles.sin(), Heads);
        world.ShouldAgree(qkv, expected);

        var (dq, dk, dv) = (world.Random(Tokens, 4, 64), world.Random(Tokens, 2, 64), world.Random(Tokens, 2, 64));
        var (back, expectedBack) = (world.Empty(Tokens, Heads.Width + 64).narrow(1, 0, Heads.Width), world.Empty(Tokens, Heads.Width));
        world.Kernels.RopeBackward(dq, dk, dv, angles.cos(), angles.sin(), back, Heads);
        world.Twin.RopeBackward(dq, dk, dv, angles.cos(), angles.sin(), expectedBack, Heads);
        world.ShouldAgree(back, expectedBack);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void HeadNorm_AndBackward_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        var (qkv, queryWeight, keyWeight) = (world.Random(Tokens, Heads.Width), world.Random(64), world.Random(64));
        var (raw, expected) = (qkv.narrow(1, 0, 384).clone(), qkv.clone());
        var (rstd, rstd2) = (world.Scales(Tokens * 6).view(Tokens, 6), world.Scales(Tokens * 6).view(Tokens, 6));
        world.Kernels.HeadNorm(qkv, queryWeight, keyWeight, 1e-6, rstd, Heads);
        world.Twin.HeadNorm(expected, queryWeight, keyWeight, 1e-6, rstd2, Heads);
        world.ShouldAgree(qkv, expected);
        world.ShouldAgree(rstd, rstd2);

        var grad = world.Random(Tokens, Heads.Width + 64).narrow(1, 0, Heads.Width);
        var expectedGrad = grad.clone();
        world.Kernels.HeadNormBackward(grad, raw, queryWeight, keyWeight, rstd, Heads);
        world.Twin.HeadNormBackward(expectedGrad, raw, queryWeight, keyWeight, rstd2, Heads);
        world.ShouldAgree(grad, expectedGrad);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void AddBias_ToWiderRows_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        var (rows, bias) = (world.Random(Tokens, Heads.Width + 64).narrow(1, 0, Heads.Width), world.Random(Heads.Width));
        var expected = rows.clone();
        world.Kernels.AddBias(rows, bias);
        world.Twin.AddBias(expected, bias);
        world.ShouldAgree(rows, expected);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void SwiGlu_AndBackward_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        var (gateUp, grad) = (world.Random(Tokens, (2 * Hidden) + 64).narrow(1, 0, 2 * Hidden), world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden));
        var (hidden, expected) = (world.Empty(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Empty(Tokens, Hidden));
        world.Kernels.SwiGlu(gateUp, hidden);
        world.Twin.SwiGlu(gateUp, expected);
        world.ShouldAgree(hidden, expected);

        var expectedGradient = gateUp.clone();
        var product = world.Empty(Tokens, Hidden);
        world.Kernels.SwiGluBackward(grad, gateUp, product);
        world.Twin.SwiGluBackward(grad, expectedGradient, world.Empty(Tokens, Hidden));
        world.ShouldAgree(product, expected);
        world.ShouldAgree(gateUp, expectedGradient);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void CrossEntropy_LossHitsAndGradient_EqualTheTwin(string target)
    {
        using var world = World.On(target);
        var logits = world.Random(Tokens, 1024);
        var targets = logits.argmax(-1); // some rows hit, some do not
        targets.narrow(0, 0, 20).fill_(TensorArithmetic.One);
        var expected = logits.clone();
        var (loss, correct, loss2, correct2) = (world.Scales(1).squeeze(), world.Scales(1).squeeze(), world.Scales(1).squeeze(), world.Scales(1).squeeze());

        world.Kernels.CrossEntropy(logits, targets, loss, correct, 0.5);
        world.Twin.CrossEntropy(expected, targets, loss2, correct2, 0.5);

        world.ShouldAgree(logits, expected);
        world.ShouldAgree(loss, loss2);
        correct.item<float>().ShouldBe(correct2.item<float>());
    }

    public static TheoryData<string, int[], int?> Packings => new()
    {
        { "cpu", [0, 5, 6, 37], null }, { "cpu", [0, 37], null }, { "cpu", [0, 18, 36], null }, { "cpu", [0, 5, 6, 37], 7 },
        { "cuda:0", [0, 5, 6, 37], null }, { "cuda:0", [0, 37], null }, { "cuda:0", [0, 18, 36], null }, { "cuda:0", [0, 128, 256, 384], null },
        { "cuda:0", [0, 5, 6, 37], 7 }, { "cuda:0", [0, 300], 64 }, { "cuda:0", [0, 18, 36], 18 },
    };

    [Theory]
    [MemberData(nameof(Packings))]
    public void Attention_PackedSequences_EqualsTheTwin(string target, int[] starts, int? window)
    {
        var scope = new AttentionScope(0.125, window);
        using var world = World.On(target);
        var borders = new PackedBorders(starts, tensor(starts, dtype: ScalarType.Int32, device: world.Device));
        var qkv = world.Random(starts[^1], Heads.Width);
        var (q, k, v) = (qkv.narrow(1, 0, 256).view(-1, 4, 64), qkv.narrow(1, 256, 128).view(-1, 2, 64), qkv.narrow(1, 384, 128).view(-1, 2, 64));
        var grad = world.Random(starts[^1], 4, 64);

        var state = world.Kernels.Attention(q, k, v, borders, scope);
        var (dq, dk, dv) = world.Kernels.AttentionBackward(grad, q, k, v, state, borders, scope);

        var expected = world.Twin.Attention(q, k, v, borders, scope);
        var (dq2, dk2, dv2) = world.Twin.AttentionBackward(grad, q, k, v, expected, borders, scope);
        world.ShouldAgree(state.Output, expected.Output);
        world.ShouldAgree(dq, dq2);
        world.ShouldAgree(dk, dk2);
        world.ShouldAgree(dv, dv2);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void Nf4Decode_IntoWiderRows_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        using var packed = Nf4Matrix.Quantize(world.Random(40, 320));
        var (decoded, expected) = (world.Empty(40, 384), world.Empty(40, 384));

        world.Kernels.Nf4Decode(packed, decoded.narrow(1, 0, 320));
        world.Twin.Nf4Decode(packed, expected.narrow(1, 0, 320));

        decoded.ne(expected).sum().item<long>().ShouldBe(0);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void QuantizeRows_AndProducts_EqualTheTwin(string target)
    {
        using var world = World.On(target);
        Assert.SkipUnless(world.HasFp8, "This GPU has no 8-bit floats.");
        var (x, columns) = (world.Random(Tokens, 9216 + 64).narrow(1, 0, 9216), world.Random(9216).to(ScalarType.Float32).abs());
        foreach (var scaling in new[] { columns, null })
        {
            var (codes, scale) = (world.Codes(Tokens, 9216), world.Scales(Tokens));
            var (codes2, scale2) = (world.Codes(Tokens, 9216), world.Scales(Tokens));
            world.Kernels.QuantizeRows(x, scaling, codes, scale);
            world.Twin.QuantizeRows(x, scaling, codes2, scale2);
            world.ShouldAgree(scale, scale2);
            // A value on the edge between two codes may fall to either: one step of three bits.
            var (a, b) = (codes.to(ScalarType.Float32), codes2.to(ScalarType.Float32));
            a.Minus(b).abs().le(b.abs().mul(tensor(0.13f, device: world.Device)).Plus(0.01)).all().item<bool>().ShouldBeTrue();
            a.ne(b).to(ScalarType.Float32).mean().item<float>().ShouldBeLessThan(0.01f);

            using var weight = Fp8Matrix.Quantize(world.Random(128, 9216));
            var (y, y2) = (world.Empty(Tokens, 128), world.Empty(Tokens, 128));
            world.Kernels.ScaledProduct(codes, scale, weight.Codes, weight.Scale, y);
            world.Twin.ScaledProduct(codes, scale, weight.Codes, weight.Scale, y2);
            world.ShouldAgree(y, y2);
        }
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void TransposeCodes_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        using var weight = Fp8Matrix.Quantize(world.Random(128, 192));
        var turned = world.Codes(192, 128);

        world.Kernels.TransposeCodes(weight.Codes, turned);

        turned.to(ScalarType.Float32).t().Minus(weight.Codes.to(ScalarType.Float32)).abs().max().item<float>().ShouldBe(0);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void Collect_BlocksOfStackedGradients_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        var (dA, dB) = (world.Random(64, 96), world.Random(80, 64));
        var (a, b) = (world.Random(8, 96).to(ScalarType.Float32), world.Random(32, 8).to(ScalarType.Float32));
        var (a2, b2) = (a.clone(), b.clone());
        static CollectedBlock[] Blocks(Tensor a, Tensor b) => [new(a.alias(), false, 8, 0, 1), new(b.alias(), true, 40, 8, 2.5)];
        using var collector = world.Kernels.CreateCollector(Blocks(a, b));
        using var twin = world.Twin.CreateCollector(Blocks(a2, b2));

        collector.Add(dA, dB);
        twin.Add(dA, dB);

        world.ShouldAgree(a, a2);
        world.ShouldAgree(b, b2);
    }

    [Theory]
    [MemberData(nameof(Targets))]
    public void Pack_BlocksOfWiderMatrices_EqualsTheTwin(string target)
    {
        using var world = World.On(target);
        var (a, b) = (world.Random(4, 32).to(ScalarType.Float32), world.Random(24, 4).to(ScalarType.Float32));
        var (wide, wide2) = (world.Empty(24, 64), world.Empty(24, 64));
        PackedBlock[] Blocks(Tensor into) => [new(a, into.narrow(0, 2, 4).narrow(1, 8, 32), 1), new(b, into.narrow(1, 60, 4), 2.5)];
        using var packer = world.Kernels.CreatePacker(Blocks(wide));
        using var twin = world.Twin.CreatePacker(Blocks(wide2));

        packer.Pack();
        twin.Pack();

        world.ShouldAgree(wide, wide2);
    }

    /// <summary>A device, its kernels, random tensors on it.</summary>
    private sealed class World : IDisposable
    {
        private readonly DisposeScope _scope = NewDisposeScope();
        private readonly Generator _generator = new(7);
        private readonly ScalarType _dtype;

        private World(Device device, ScalarType dtype, BlockKernels kernels) => (Device, _dtype, Kernels) = (device, dtype, kernels);

        public Device Device { get; }

        public BlockKernels Kernels { get; }

        public BlockKernels Twin { get; } = new TensorBlockKernels();

        public static World On(string target)
        {
            if (target == "cpu")
            {
                return new World(CPU, ScalarType.Float32, new CpuBlockKernels());
            }

            Assert.SkipUnless(TorchLoader.TorchCuda != 0 && cuda.is_available(), "This host has no GPU that libtorch can use.");
            return new World(Devices.Parse(target), ScalarType.BFloat16, new CudaBlockKernels(0));
        }

        public Tensor Random(params long[] shape) => randn(shape, generator: _generator).to(_dtype, Device);

        public Tensor Empty(params long[] shape) => zeros(shape, dtype: _dtype, device: Device);

        public Tensor Scales(long count) => zeros(count, dtype: ScalarType.Float32, device: Device);

        public Tensor Codes(long rows, long columns) => empty([rows, columns], dtype: Fp8Matrix.E4M3, device: Device);

        public bool HasFp8 => Device.type is DeviceType.CPU || CudaDriver.ComputeCapability(0) is ( > 8, _) or (8, >= 9);

        public Tensor Angles(long rows, long columns) => rand(rows, columns, generator: _generator).to(Device);

        public void ShouldAgree(Tensor actual, Tensor expected)
        {
            var (a, b) = (actual.to(ScalarType.Float32), expected.to(ScalarType.Float32));
            var error = a.Minus(b).abs().max().item<float>() / b.abs().max().item<float>();
            error.ShouldBeLessThan(_dtype is ScalarType.Float32 ? 1e-5f : 2e-2f);
        }

        public void Dispose()
        {
            _generator.Dispose();
            _scope.Dispose();
        }
    }
}
