using System.Diagnostics;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>
/// Training speed on Llama shapes with random weights: LoRA r=16 on all linear layers, clipping, fused AdamW; the same cases as a
/// Hugging Face baseline, so that both can be measured in one run on one card.
/// </summary>
internal static class TrainBench
{
    private const int WarmUp = 3;

    /// <summary>What is to be measured: <c>fast:8b:8:2048</c>, <c>fast:8b:8:2048:lean</c>, <c>plain:1b:4:2048</c>, <c>fast:8b:chats</c>.</summary>
    public sealed record Case(string Tier, string Shape, int Batch, int Length, bool Lean, bool Chats)
    {
        public static Case Parse(string text)
        {
            var parts = text.Split(':');
            var known = parts.Length >= 3 && parts[0] is "fast" or "plain" && LlamaShapes.Names.Contains(parts[1]);
            if (known && parts is [var tier, var shape, "chats"])
            {
                return new Case(tier, shape, 0, 0, Lean: false, Chats: true);
            }

            return known && parts.Length is 4 or 5 && int.TryParse(parts[2], out var batch) && int.TryParse(parts[3], out var length)
                && (parts.Length == 4 || parts[4] == "lean")
                ? new Case(parts[0], parts[1], batch, length, parts.Length == 5, Chats: false)
                : throw new CommandException(
                    $"'{text}' is no case. Say fast|plain:{string.Join('|', LlamaShapes.Names)}:BATCH:LENGTH[:lean] or fast:SHAPE:chats.", ExitCode.Usage);
        }
    }

    public static Dictionary<string, object> Run(string name, string deviceName, int steps)
    {
        var (@case, device) = (Case.Parse(name), Devices.Parse(deviceName));
        var onGpu = device.type is DeviceType.CUDA;
        var before = onGpu ? NvidiaMemory.UsedGib(device.index) : 0;
        var started = Stopwatch.GetTimestamp();
        using var model = LlamaShapes.Create(@case.Shape, device, onGpu ? ScalarType.BFloat16 : ScalarType.Float32);
        using var adapter = new LoraConfig { R = 16, LoraAlpha = 32, TargetModules = ModuleSelector.AllLinear }.CreateAdapter(model);
        adapter.Initialize(0);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0.01);
        using var step = Step(@case, model, adapter, device);
        var batches = @case.Chats ? Chats() : [Rows(@case.Batch, @case.Length)];

        var (times, tokens, losses, first) = (new List<double>(), new List<int>(), new List<double>(), 0.0);
        for (var i = 0; i < steps; i++)
        {
            var batch = batches[i % batches.Count];
            var start = Stopwatch.GetTimestamp();
            using var scope = NewDisposeScope();
            var (loss, _) = step.ForwardBackward(batch, 1.0 / batch.Targets.Length, null);
            optimizer.ClipGradients(1);
            optimizer.Step(1e-4);
            optimizer.ZeroGrad();
            step.AdapterChanged();
            losses.Add(Math.Round(loss.item<float>() / batch.Targets.Length, 4)); // waits for the device
            if (i == 0)
            {
                first = Stopwatch.GetElapsedTime(started).TotalSeconds;
            }

            times.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
            tokens.Add(batch.TokenCount);
        }

        var measured = times.Skip(WarmUp).Order().ToList();
        var rate = @case.Chats ? tokens.Skip(WarmUp).Sum() / times.Skip(WarmUp).Sum() : tokens[0] / measured[measured.Count / 2];
        var result = new Dictionary<string, object>
        {
            ["case"] = name,
            ["tokens_per_second"] = Math.Round(rate),
            ["first_step_seconds"] = Math.Round(first, 1),
            ["first_loss"] = losses[0],
            ["last_loss"] = losses[^1],
            ["step"] = step.Description,
        };
        if (onGpu)
        {
            result["memory_gib"] = Math.Round(NvidiaMemory.UsedGib(device.index) - before, 1);
        }

        return result;
    }

    private static ITrainingStep Step(Case @case, LlamaForCausalLM model, Adapter adapter, Device device)
    {
        if (@case.Tier == "plain")
        {
            return new AutogradStep(model, adapter);
        }

        BlockKernels kernels = device.type is DeviceType.CUDA ? new CudaBlockKernels(device.index) : new CpuBlockKernels();
        return new FastLlamaStep(model, adapter, kernels, @case.Lean ? ActivationMode.Recompute : ActivationMode.Keep);
    }

    private static SftBatch Rows(int count, int length)
    {
        var random = new Random(0);
        return SftBatch.Of(Enumerable.Range(0, count).Select(_ => Row(random, length)));
    }

    /// <summary>Chats with exponential lengths between 50 and 800 tokens (mean 234), packed into batches of about 16,384.</summary>
    private static List<SftBatch> Chats()
    {
        var random = new Random(0);
        var (batches, rows, held) = (new List<SftBatch>(), new List<TrainingRow>(), 0);
        while (batches.Count < 8)
        {
            var length = (int)Math.Clamp(50 - (200 * Math.Log(1 - random.NextDouble())), 50, 800);
            if (held + length > 16_384)
            {
                batches.Add(SftBatch.Of(rows));
                (rows, held) = ([], 0);
            }

            rows.Add(Row(random, length));
            held += length;
        }

        return batches;
    }

    private static TrainingRow Row(Random random, int length) =>
        new([.. Enumerable.Range(0, length).Select(_ => random.Next(LlamaShapes.Vocabulary))], [.. Enumerable.Repeat(true, length)], 1);
}
