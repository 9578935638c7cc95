using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Tests.Kernels;

/// <summary>Every kernel against its plain-tensor twin: those for CPUs in float32, those for GPUs in bfloat16 where there is one.</summary>
public sealed class BlockKernelsTests
{
    private const int Tokens = 37;
    private const int Hidden = 192;
    private static readonly HeadLayout Heads = new(4, 2, 64);

    private static readonly Lazy<CudaBlockKernels> OnGpu = new(() => new CudaBlockKernels(0)); // compiled once

    public static TheoryData<string> Targets => ["cpu", "cuda:0"];

    /// <summary>Every form of norm, a bias behind one of them.</summary>
    public static TheoryData<string, string> Norms =>
    [
        .. from target in new[] { "cpu", "cuda:0" }
           from norm in new[] { "rms", "offset", "layer", "layer with bias", "none" }
           select new TheoryDataRow<string, string>(target, norm),
    ];

    [Theory]
    [MemberData(nameof(Norms))]
    public void AddNorm_WithAndWithoutDelta_EqualsTheTwin(string target, string form)
    {
        using var world = World.On(target);
        using var norm = world.Norm(form, Hidden);
        foreach (var delta in new[] { world.Random(Tokens, Hidden), null })
        {
            var x = world.Random(Tokens, Hidden + 32).Plus(0.5).narrow(1, 16, Hidden);
            var (sum, normed, stats) = (world.Empty(Tokens, Hidden), world.Empty(Tokens, Hidden + 64), norm.NewStats(Tokens, world.Device));
            var (sum2, normed2, stats2) = (world.Empty(Tokens, Hidden), world.Empty(Tokens, Hidden + 64), norm.NewStats(Tokens, world.Device));

            world.Kernels.AddNorm(x, delta, norm, delta is null ? null : sum, normed.narrow(1, 0, Hidden), stats);
            world.Twin.AddNorm(x, delta, norm, delta is null ? null : sum2, normed2.narrow(1, 0, Hidden), stats2);

            world.ShouldAgree(normed.narrow(1, 0, Hidden), normed2.narrow(1, 0, Hidden));
            if (norm.Form is not NormForm.None)
            {
                world.ShouldAgree(stats, stats2);
            }

            if (delta is not null)
            {
                world.ShouldAgree(sum, sum2);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Norms))]
    public void NormBackward_OverTheResidual_EqualsTheTwinAndAutograd(string target, string form)
    {
        using var world = World.On(target);
        using var norm = world.Norm(form, Hidden);
        var (grad, x) = (world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Random(Tokens, Hidden + 32).narrow(1, 16, Hidden));
        var stats = norm.NewStats(Tokens, world.Device);
        world.Twin.AddNorm(x, null, norm, null, world.Empty(Tokens, Hidden), stats);
        var (residual, expected) = (world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Empty(Tokens, Hidden));
        world.Twin.NormBackward(grad, x, norm, stats, residual, expected);
        var recorded = x.detach().to(ScalarType.Float32).requires_grad_(true);
        World.Apply(norm, recorded).backward([grad.to(ScalarType.Float32)]);
        world.ShouldAgree(expected, recorded.grad!.Plus(residual.to(ScalarType.Float32)));

        world.Kernels.NormBackward(grad, x, norm, stats, residual, residual);

        world.ShouldAgree(residual, expected);
    }

    /// <summary>All of a head turns, whole groups of eight pairs of it, or any number; q, k and v of a head apart or together.</summary>
    public static TheoryData<string, bool, int, bool> Turns =>
    [
        .. from target in new[] { "cpu", "cuda:0" }
           from sideBySide in new[] { false, true }
           from turning in new[] { 64, 16, 20 }
           from headByHead in new[] { false, true }
           select new TheoryDataRow<string, bool, int, bool>(target, sideBySide, turning, headByHead),
    ];

    [Theory]
    [MemberData(nameof(Turns))]
    public void Rope_AndBack_EqualsTheTwin(string target, bool sideBySide, int turning, bool headByHead)
    {
        using var world = World.On(target);
        var heads = new HeadLayout(4, headByHead ? 4 : 2, 64, sideBySide) { Turning = turning, HeadByHead = headByHead };
        var qkv = world.Random(Tokens, heads.Width);
        var (expected, angles) = (qkv.clone(), world.Angles(Tokens, turning / 2));
        world.Kernels.Rope(qkv, angles.cos(), angles.sin(), heads);
        world.Twin.Rope(expected, angles.cos(), angles.sin(), heads);
        world.ShouldAgree(qkv, expected);

        var (dq, dk, dv) = (world.Random(Tokens, 4, 64), world.Random(Tokens, heads.KeyValueHeads, 64), world.Random(Tokens, heads.KeyValueHeads, 64));
        var (back, expectedBack) = (world.Empty(Tokens, heads.Width + 64).narrow(1, 0, heads.Width), world.Empty(Tokens, heads.Width));
        world.Kernels.RopeBackward(dq, dk, dv, angles.cos(), angles.sin(), back, heads);
        world.Twin.RopeBackward(dq, dk, dv, angles.cos(), angles.sin(), expectedBack, heads);
        world.ShouldAgree(back, expectedBack);
    }

    [Theory]
    [InlineData("cpu", "rms")]
    [InlineData("cpu", "offset")]
    [InlineData("cuda:0", "rms")]
    [InlineData("cuda:0", "offset")]
    public void HeadNorm_AndBackward_EqualsTheTwin(string target, string form)
    {
        using var world = World.On(target);
        using var query = world.Norm(form, 64);
        using var key = world.Norm(form, 64);
        var qkv = world.Random(Tokens, Heads.Width);
        var (raw, expected) = (qkv.narrow(1, 0, 384).clone(), qkv.clone());
        var (rstd, rstd2) = (world.Scales(Tokens * 6).view(Tokens, 6), world.Scales(Tokens * 6).view(Tokens, 6));
        world.Kernels.HeadNorm(qkv, query, key, rstd, Heads);
        world.Twin.HeadNorm(expected, query, key, rstd2, Heads);
        world.ShouldAgree(qkv, expected);
        world.ShouldAgree(rstd, rstd2);

        var grad = world.Random(Tokens, Heads.Width + 64).narrow(1, 0, Heads.Width);
        var expectedGrad = grad.clone();
        world.Kernels.HeadNormBackward(grad, raw, query, key, rstd, Heads);
        world.Twin.HeadNormBackward(expectedGrad, raw, query, key, rstd2, Heads);
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

    public static TheoryData<string, string> Activations =>
    [
        .. from target in new[] { "cpu", "cuda:0" }
           from form in Enum.GetNames<GateForm>()
           select new TheoryDataRow<string, string>(target, form),
    ];

    [Theory]
    [MemberData(nameof(Activations))]
    public void Activate_AndBackward_EqualsTheTwinAndAutograd(string target, string activation)
    {
        var form = Enum.Parse<GateForm>(activation);
        using var world = World.On(target);
        var (x, grad) = (world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden));
        x.Scale(3);
        var (hidden, expected) = (world.Empty(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Empty(Tokens, Hidden));
        world.Kernels.Activate(form, x, hidden);
        world.Twin.Activate(form, x, expected);
        world.ShouldAgree(hidden, expected);

        var (expectedGradient, product) = (x.clone(), world.Empty(Tokens, Hidden));
        var recorded = x.detach().to(ScalarType.Float32).requires_grad_(true);
        Activated(form, recorded).backward([grad.to(ScalarType.Float32)]);
        world.Kernels.ActivateBackward(form, grad, x, product);
        world.Twin.ActivateBackward(form, grad, expectedGradient, world.Empty(Tokens, Hidden));
        world.ShouldAgree(product, expected);
        world.ShouldAgree(x, expectedGradient);
        world.ShouldAgree(expectedGradient, recorded.grad!);
    }

    private static Tensor Activated(GateForm form, Tensor x) => form switch
    {
        GateForm.Silu => F.silu(x),
        GateForm.Gelu => Activation.TanhGelu(x),
        GateForm.ExactGelu => F.gelu(x),
        _ => F.relu(x),
    };

    [Theory]
    [MemberData(nameof(Activations))]
    public void Gate_AndBackward_EqualsTheTwinAndAutograd(string target, string gate)
    {
        var form = Enum.Parse<GateForm>(gate);
        using var world = World.On(target);
        var (gateUp, grad) = (world.Random(Tokens, (2 * Hidden) + 64).narrow(1, 0, 2 * Hidden), world.Random(Tokens, Hidden + 64).narrow(1, 0, Hidden));
        gateUp.Scale(3); // to where a gate is shut
        var (hidden, expected) = (world.Empty(Tokens, Hidden + 64).narrow(1, 0, Hidden), world.Empty(Tokens, Hidden));
        world.Kernels.Gate(form, gateUp, hidden);
        world.Twin.Gate(form, gateUp, expected);
        world.ShouldAgree(hidden, expected);

        var expectedGradient = gateUp.clone();
        var product = world.Empty(Tokens, Hidden);
        var recorded = gateUp.detach().to(ScalarType.Float32).requires_grad_(true);
        var halves = recorded.chunk(2, -1);
        Activated(form, halves[0]).mul(halves[1]).backward([grad.to(ScalarType.Float32)]);
        world.Kernels.GateBackward(form, grad, gateUp, product);
        world.Twin.GateBackward(form, grad, expectedGradient, world.Empty(Tokens, Hidden));
        world.ShouldAgree(product, expected);
        world.ShouldAgree(gateUp, expectedGradient);
        world.ShouldAgree(expectedGradient, recorded.grad!);
    }

    /// <summary>More rows than a grid's second dimension has, and rows of several blocks with a rest.</summary>
    [Theory]
    [InlineData("cpu", 70_000, 16)]
    [InlineData("cpu", 5, 4104)]
    [InlineData("cuda:0", 70_000, 16)]
    [InlineData("cuda:0", 5, 4104)]
    public void Gate_ManyRowsOrWideOnes_EqualsTheTwin(string target, int rows, int width)
    {
        using var world = World.On(target);
        var (gateUp, grad) = (world.Random(rows, 2 * width), world.Random(rows, width));
        var (hidden, product, expected, expectedGradient) = (world.Empty(rows, width), world.Empty(rows, width), world.Empty(rows, width), gateUp.clone());
        world.Kernels.Gate(GateForm.Silu, gateUp, hidden);
        world.Kernels.GateBackward(GateForm.Silu, grad, gateUp, product);
        world.Twin.GateBackward(GateForm.Silu, grad, expectedGradient, expected);
        world.ShouldAgree(hidden, expected);
        world.ShouldAgree(product, expected);
        world.ShouldAgree(gateUp, expectedGradient);
    }

    public static TheoryData<string, double, double, int> Scores =>
    [
        .. from target in new[] { "cpu", "cuda:0" }
           from scores in new[] { (1.0, 0.0, 1024), (0.125, 0, 1021), (1, 2, 1024), (3, 1.5, 1003) }
           select new TheoryDataRow<string, double, double, int>(target, scores.Item1, scores.Item2, scores.Item3),
    ];

    [Theory]
    [MemberData(nameof(Scores))]
    public void CrossEntropy_LossHitsAndGradient_EqualTheTwinAndAutograd(string target, double factor, double cap, int vocabulary)
    {
        using var world = World.On(target);
        var form = new ScoreForm(factor, cap == 0 ? null : cap);
        var logits = world.Random(Tokens, 1024).narrow(1, 0, vocabulary);
        var targets = logits.argmax(-1); // some rows hit, some do not
        targets.narrow(0, 0, 20).fill_(TensorArithmetic.One);
        var expected = logits.clone();
        var recorded = logits.detach().to(ScalarType.Float32).requires_grad_(true);
        var scores = recorded.Times(factor);
        scores = cap == 0 ? scores : scores.Times(1 / cap).tanh().Times(cap);
        var plain = F.cross_entropy(scores, targets, reduction: nn.Reduction.Sum);
        plain.Times(0.5).backward();
        var (loss, correct, loss2, correct2) = (world.Scales(1).squeeze(), world.Scales(1).squeeze(), world.Scales(1).squeeze(), world.Scales(1).squeeze());

        world.Kernels.CrossEntropy(logits, targets, loss, correct, 0.5, form);
        world.Twin.CrossEntropy(expected, targets, loss2, correct2, 0.5, form);

        world.ShouldAgree(logits, expected);
        world.ShouldAgree(expected, recorded.grad!);
        world.ShouldAgree(loss, loss2);
        world.ShouldAgree(loss2, plain);
        correct.item<float>().ShouldBe(correct2.item<float>());
    }

    [Theory]
    [InlineData("cpu", null)]
    [InlineData("cpu", 9)]
    [InlineData("cuda:0", null)]
    [InlineData("cuda:0", 9)]
    public void CappedSoftmax_AndBackward_EqualsTheTwin(string target, int? window)
    {
        using var world = World.On(target);
        var rows = new CappedRows(12, 7, window, 0.5, 2);
        var (scores, grad) = (world.Random(3, 24, 24).narrow(2, 0, 19), world.Random(3, 24, 24).narrow(2, 0, 19));
        var (weights, scores2, grad2) = (scores.clone(), scores.clone(), grad.clone());
        world.Twin.CappedSoftmax(weights, rows);
        world.Twin.CappedSoftmaxBackward(scores2, grad2, rows);
        world.ShouldAgree(scores2, weights);

        world.Kernels.CappedSoftmaxBackward(scores, grad, rows);

        world.ShouldAgree(scores, weights);
        world.ShouldAgree(grad, grad2);
    }

    public static TheoryData<string, int[], int?, double?> Packings => new()
    {
        { "cpu", [0, 5, 6, 37], null, null }, { "cpu", [0, 37], null, null }, { "cpu", [0, 18, 36], null, null }, { "cpu", [0, 5, 6, 37], 7, null },
        { "cpu", [0, 5, 6, 37], null, 3 }, { "cpu", [0, 18, 36], 7, 3 }, { "cpu", [0, 1100], 600, 3 },
        { "cpu", [0, 17, 60, 61, 81, 100, 143], null, 3 }, { "cpu", [0, 17, 60, 61, 81, 100, 143], 9, 3 }, { "cpu", [0, 20, 540, 1140, 1160], null, 3 },
        { "cuda:0", [0, 5, 6, 37], null, null }, { "cuda:0", [0, 37], null, null }, { "cuda:0", [0, 18, 36], null, null }, { "cuda:0", [0, 128, 256, 384], null, null },
        { "cuda:0", [0, 5, 6, 37], 7, null }, { "cuda:0", [0, 300], 64, null }, { "cuda:0", [0, 18, 36], 18, null },
        { "cuda:0", [0, 5, 6, 37], null, 3 }, { "cuda:0", [0, 18, 36], 7, 3 }, { "cuda:0", [0, 1100], 600, 3 }, { "cuda:0", [0, 1300, 2600], null, 50 },
        { "cuda:0", [0, 17, 60, 61, 81, 100, 143], null, 3 }, { "cuda:0", [0, 17, 60, 61, 81, 100, 143], 9, 3 }, { "cuda:0", [0, 20, 540, 1140, 1160], null, 3 },
    };

    [Theory]
    [MemberData(nameof(Packings))]
    public void Attention_PackedSequences_EqualsTheTwin(string target, int[] starts, int? window, double? cap)
    {
        var scope = new AttentionScope(0.125, window, cap);
        using var world = World.On(target);
        using var borders = new PackedBorders(starts, tensor(starts, dtype: ScalarType.Int32, device: world.Device));
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

    /// <summary>Gemma's heads, in sequences of one length and of several.</summary>
    [Theory]
    [InlineData("cpu", new[] { 0, 128, 256 })]
    [InlineData("cuda:0", new[] { 0, 128, 256 })]
    [InlineData("cuda:0", new[] { 0, 100, 256 })]
    public void Attention_WideHeads_EqualsTheTwin(string target, int[] starts)
    {
        var scope = new AttentionScope(0.0625);
        using var world = World.On(target);
        using var borders = new PackedBorders(starts, tensor(starts, dtype: ScalarType.Int32, device: world.Device));
        var (q, k, v) = (world.Random(256, 4, 256), world.Random(256, 1, 256), world.Random(256, 1, 256));
        var grad = world.Random(256, 4, 256);

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
    [InlineData("cpu", true)]
    [InlineData("cpu", false)]
    [InlineData("cuda:0", true)]
    [InlineData("cuda:0", false)]
    public void GroupedProduct_WithAnEmptyGroup_EqualsTheProductsOneByOne(string target, bool turned)
    {
        using var world = World.On(target);
        var (x, matrices) = (world.Random(Tokens, Hidden), turned ? world.Random(4, 128, Hidden) : world.Random(4, Hidden, 128));
        var products = matrices.unbind().Select(matrix => turned ? matrix.t() : matrix).ToList();
        int[] ends = [7, 7, 20, Tokens];
        var expected = cat([.. ends.Select((end, i) => x.narrow(0, i == 0 ? 0 : ends[i - 1], end - (i == 0 ? 0 : ends[i - 1])).mm(products[i]))], 0);

        var y = world.Kernels.GroupedProduct(x, matrices, turned, tensor(ends, dtype: ScalarType.Int32, device: world.Device));

        world.ShouldAgree(y, expected);
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
            return new World(Devices.Parse(target), ScalarType.BFloat16, OnGpu.Value);
        }

        public Tensor Random(params long[] shape) => randn(shape, generator: _generator).to(_dtype, Device);

        public Tensor Empty(params long[] shape) => zeros(shape, dtype: _dtype, device: Device);

        public Tensor Scales(long count) => zeros(count, dtype: ScalarType.Float32, device: Device);

        public Tensor Codes(long rows, long columns) => empty([rows, columns], dtype: Fp8Matrix.E4M3, device: Device);

        public bool HasFp8 => Device.type is DeviceType.CPU || CudaDriver.ComputeCapability(0) is ( > 8, _) or (8, >= 9);

        /// <summary>A norm of random weights.</summary>
        public NormWeights Norm(string form, int width)
        {
            Site? site = form switch
            {
                "rms" => new RmsNorm(width, 1e-5),
                "offset" => new RmsNorm(width, 1e-5, offset: true),
                "layer" => new LayerNorm(width, 1e-5, hasBias: false),
                "layer with bias" => new LayerNorm(width, 1e-5),
                _ => null,
            };
            site?.Weight.Set(Random(width));
            site?.Bias?.Set(Random(width));
            return NormWeights.Of(site);
        }

        /// <summary>The norm of x, in float32, by the models' own code.</summary>
        public static Tensor Apply(NormWeights norm, Tensor x)
        {
            Site? site = norm.Form switch
            {
                NormForm.Rms => new RmsNorm((int)x.size(1), norm.Eps),
                NormForm.OffsetRms => new RmsNorm((int)x.size(1), norm.Eps, offset: true),
                NormForm.Layer => new LayerNorm((int)x.size(1), norm.Eps),
                _ => null,
            };
            return site?.Compute(x, norm.Weight!.to(ScalarType.Float32), norm.Bias?.to(ScalarType.Float32)) ?? x.alias();
        }

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
