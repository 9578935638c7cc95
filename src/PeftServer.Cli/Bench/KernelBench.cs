using System.Diagnostics;
using System.Globalization;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Optimizers;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>The kernels of the hand-written step at the widths of an 8B Llama, 16,384 tokens: time, bytes, share of what a copy reaches.</summary>
internal static class KernelBench
{
    private const int Tokens = 16_384;
    private const int Hidden = 4096;
    private const int Intermediate = 14_336;
    private static readonly HeadLayout Heads = new(32, 8, 128);

    public static void Run(TextWriter output)
    {
        var device = Devices.Parse("cuda:0");
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var kernels = new CudaBlockKernels(device.index);
        Tensor New(params long[] shape) => randn(shape, dtype: ScalarType.BFloat16, device: device);
        var (x, y, sum, rstd) = (New(Tokens, Hidden), New(Tokens, Hidden), New(Tokens, Hidden), empty([1, Tokens], device: device));
        var site = new RmsNorm(Hidden, 1e-6);
        site.weight.Set(New(Hidden));
        using var norm = NormWeights.Of(site);
        var wide = New(Tokens, Hidden + 64).narrow(1, 0, Hidden);
        var (gateUp, hidden) = (New(Tokens, 2 * Intermediate), New(Tokens, Intermediate + 64).narrow(1, 0, Intermediate));
        var product = New(Tokens, Intermediate);
        var (qkv, dq, dk) = (New(Tokens, Heads.Width), New(Tokens, 32, 128), New(Tokens, 8, 128));
        var angles = rand(Tokens, 64, device: device);
        var (logits, targets) = (New(2048, ModelShapes.LlamaVocabulary), zeros(2048, dtype: ScalarType.Int64, device: device));
        var (loss, correct) = (zeros([], device: device), zeros([], device: device));

        var copy = Milliseconds(() => sum.copy_(x));
        var bandwidth = 2.0 * Tokens * Hidden * 2 / copy;
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"copy                      {copy * 1000,8:F0} us   {bandwidth / 1e9:F2} TB/s"));
        const double Row = Tokens * Hidden * 2.0;
        const double Wide = Tokens * Intermediate * 2.0;
        Report("add + rms norm", 4 * Row, () => kernels.AddNorm(x, y, norm, sum, wide, rstd));
        Report("rms norm backward", 4 * Row, () => kernels.NormBackward(wide, x, norm, rstd, y, sum));
        Report("rope", 2.0 * Tokens * 40 * 128 * 2, () => kernels.Rope(qkv, angles, angles, Heads));
        Report("rope backward", 2.0 * Tokens * Heads.Width * 2, () => kernels.RopeBackward(dq, dk, dk, angles, angles, qkv, Heads));
        Report("swiglu", 3 * Wide, () => kernels.Gate(GateForm.Silu, gateUp, hidden));
        Report("swiglu backward", 6 * Wide, () => kernels.GateBackward(GateForm.Silu, hidden, gateUp, product));
        Report("cross-entropy", 3.0 * 2048 * ModelShapes.LlamaVocabulary * 2, () => kernels.CrossEntropy(logits, targets, loss, correct, 1e-4, ScoreForm.Plain));

        var lengths = Enumerable.Range(0, 9).Select(i => i * 2048).ToArray();
        var borders = new PackedBorders(lengths, tensor(lengths, dtype: ScalarType.Int32, device: device));
        var (q, k) = (qkv.narrow(1, 0, Heads.QueryWidth).view(-1, 32, 128), qkv.narrow(1, Heads.QueryWidth, Heads.KeyValueWidth).view(-1, 8, 128));
        var state = kernels.Attention(q, k, k, borders, new(0.088));
        Time("attention", () => kernels.Attention(q, k, k, borders, new(0.088)).Output.Dispose());
        Time("attention backward", () => kernels.AttentionBackward(dq, q, k, k, state, borders, new(0.088)));
        int[] ragged = [0, 2047, .. lengths.Skip(2)];
        var others = new PackedBorders(ragged, tensor(ragged, dtype: ScalarType.Int32, device: device));
        var flash = kernels.Attention(q, k, k, others, new(0.088));
        Time("ragged attention", () => kernels.Attention(q, k, k, others, new(0.088)).Output.Dispose());
        Time("ragged backward", () => kernels.AttentionBackward(dq, q, k, k, flash, others, new(0.088)));
        foreach (var tokens in new[] { Tokens, Tokens / 4 })
        {
            Block(device, kernels, tokens, Time);
        }

        foreach (var tokens in new[] { Tokens, Tokens / 4 })
        {
            Products(device, tokens, Time);
        }

        void Time(string name, Action run)
        {
            var milliseconds = Milliseconds(() =>
            {
                using var inner = NewDisposeScope();
                run();
            });
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name,-28} {milliseconds * 1000,9:F0} us"));
        }

        void Report(string name, double bytes, Action run)
        {
            var milliseconds = Milliseconds(run);
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name,-28} {milliseconds * 1000,9:F0} us   {bytes / milliseconds / bandwidth,6:P0} of the copy's bandwidth"));
        }
    }

    /// <summary>The products of a block, each with those of its LoRA.</summary>
    private static void Products(Device device, int tokens, Action<string, Action> time)
    {
        Tensor New(params long[] shape) => randn(shape, dtype: ScalarType.BFloat16, device: device);
        foreach (var (name, inputs, outputs) in ((string, int, int)[])[("q|k|v", Hidden, Heads.Width), ("o", Hidden, Hidden), ("gate|up", Hidden, 2 * Intermediate), ("down", Intermediate, Hidden)])
        {
            using var scope = NewDisposeScope();
            var (input, matrix, result) = (New(tokens, inputs + 64), New(outputs, inputs + 64), New(tokens, outputs));
            var (u, a) = (New(tokens, 64), New(64, inputs));
            time($"{tokens} {name} forward", () => Aten.Product(input, matrix.t(), result));
            time($"{tokens} {name} u", () => Aten.Product(input.narrow(1, 0, inputs), a.t(), input.narrow(1, inputs, 64)));
            time($"{tokens} {name} backward", () => result.mm(matrix));
            time($"{tokens} {name} dx += du A", () => input.narrow(1, 0, inputs).addmm_(u, a, 1f, 1f));
            time($"{tokens} {name} dB", () => result.t().mm(u));
            time($"{tokens} {name} dA", () => u.t().mm(input.narrow(1, 0, inputs)));
        }
    }

    /// <summary>A whole block with LoRA on all its linear layers, and what stands around the blocks in a step.</summary>
    private static void Block(Device device, CudaBlockKernels kernels, int tokens, Action<string, Action> time)
    {
        using var scope = NewDisposeScope();
        using var model = ModelShapes.Create("8b", device, ScalarType.BFloat16, blocks: 1);
        using var adapter = new LoraConfig { R = 16, LoraAlpha = 32, TargetModules = ModuleSelector.AllLinear }.CreateAdapter(model);
        adapter.Initialize(0);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0.01);
        using var layer = new FastLlamaLayer(FastDecoder.Of(model, out _)!.Blocks[0], adapter, kernels);
        int[] starts = [.. Enumerable.Range(0, (tokens / 2048) + 1).Select(i => i * 2048)];
        var (cos, sin) = (rand(tokens, 64, device: device), rand(tokens, 64, device: device));
        var batch = new FastBatch([(cos, sin)], new PackedBorders(starts, tensor(starts, dtype: ScalarType.Int32, device: device)));
        var (x, y) = (randn(tokens, Hidden, dtype: ScalarType.BFloat16, device: device), randn(tokens, Hidden, dtype: ScalarType.BFloat16, device: device));
        var rowsOfGradient = randn(tokens, Hidden + layer.GradientRoom, dtype: ScalarType.BFloat16, device: device);
        time($"block, {tokens} forward", () => layer.Forward(x, y, batch, ActivationMode.Keep));
        time($"block, {tokens} both", () =>
        {
            var (_, _, state) = layer.Forward(x, y, batch, ActivationMode.Keep);
            layer.Backward(rowsOfGradient, state, batch, ActivationMode.Keep, needsInput: true);
        });
        var rows = SftBatch.Of(Enumerable.Range(0, tokens / 2048).Select(_ => TrainBench.Row(new Random(0), 2048, ModelShapes.LlamaVocabulary)));
        using var step = new FastLlamaStep(model, adapter, kernels, ActivationPlan.Keep);
        time($"one block, {tokens}", () => step.ForwardBackward(rows, 1, null));
    }

    private static double Milliseconds(Action run)
    {
        const int Times = 20;
        run();
        cuda.synchronize();
        var start = Stopwatch.GetTimestamp();
        for (var i = 0; i < Times; i++)
        {
            run();
        }

        cuda.synchronize();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds / Times;
    }
}
