using System.Diagnostics;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>
/// Training speed on published shapes with random weights: LoRA r=16 on all linear layers, clipping, fused AdamW; the same cases as a
/// Hugging Face baseline, so that both can be measured in one run on one card.
/// </summary>
internal static class TrainBench
{
    private const int WarmUp = 3;

    /// <summary>
    /// What is to be measured: <c>fast:8b:8:2048</c>, <c>plain:1b:4:2048</c>, <c>fast:8b:chats</c>, with options behind it:
    /// <c>keep</c>, <c>lean</c>, <c>offload</c> or a number (activations kept, so many tokens at a time); <c>nf4</c>, <c>fp8</c>;
    /// <c>beside</c> (a second stream).
    /// </summary>
    public sealed record Case(string Tier, string Shape, int Batch, int Length, ActivationPlan? Plan, BaseQuantization Quantization, bool Overlaps = false)
    {
        public bool Chats => Length == 0;

        public static Case Parse(string text)
        {
            var parts = text.Split(':');
            if (parts is [("fast" or "plain") and var tier, var shape, .. var rest] && ModelShapes.Names.Contains(shape))
            {
                if (rest is ["chats", .. var options])
                {
                    return WithOptions(new Case(tier, shape, 0, 0, null, BaseQuantization.None), options, text);
                }

                if (rest is [var rows, var columns, .. var others] && int.TryParse(rows, out var batch) && int.TryParse(columns, out var length) && batch > 0 && length > 1)
                {
                    return WithOptions(new Case(tier, shape, batch, length, null, BaseQuantization.None), others, text);
                }
            }

            throw Unknown(text);
        }

        private static Case WithOptions(Case @case, IEnumerable<string> options, string text) => options.Aggregate(@case, (result, option) => option switch
        {
            "keep" => result with { Plan = ActivationPlan.Keep },
            "lean" => result with { Plan = ActivationPlan.Lean },
            "offload" => result with { Plan = ActivationPlan.Offload },
            "nf4" => result with { Quantization = BaseQuantization.Nf4 },
            "fp8" => result with { Quantization = BaseQuantization.Fp8 },
            "beside" => result with { Overlaps = true },
            _ when int.TryParse(option, out var tokens) && tokens > 0 => result with { Plan = ActivationPlan.Keep with { PassTokens = tokens } },
            _ => throw Unknown(text),
        });

        private static CommandException Unknown(string text) => new(
            $"'{text}' is no case. Say fast|plain:{string.Join('|', ModelShapes.Names)}:BATCH:LENGTH or fast:SHAPE:chats, and behind it maybe :keep, :lean, :offload, :TOKENS, :nf4, :fp8, :beside.",
            ExitCode.Usage);
    }

    public static Dictionary<string, object> Run(string name, string deviceName, int steps, bool phases)
    {
        var (@case, device) = (Case.Parse(name), Devices.Parse(deviceName));
        var onGpu = device.type is DeviceType.CUDA;
        var before = onGpu ? NvidiaMemory.UsedGib(device.index) : 0;
        var started = Stopwatch.GetTimestamp();
        using var model = ModelShapes.Create(@case.Shape, device, onGpu ? ScalarType.BFloat16 : ScalarType.Float32, @case.Quantization);
        using var adapter = new LoraConfig { R = 16, LoraAlpha = 32, TargetModules = ModuleSelector.AllLinear }.CreateAdapter(model);
        adapter.Initialize(0);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0.01);
        var (plan, clock) = ("", new Dictionary<string, List<double>>());
        using var step = Step(@case.Tier, @case.Plan, model, adapter, device, message => plan = message, @case.Overlaps);
        var vocabulary = model.Config.VocabSize;
        var batches = @case.Chats ? Chats(vocabulary) : [Rows(@case.Batch, @case.Length, vocabulary)];

        var (times, tokens, losses, first) = (new List<double>(), new List<int>(), new List<double>(), 0.0);
        for (var i = 0; i < steps; i++)
        {
            var batch = batches[i % batches.Count];
            var start = Stopwatch.GetTimestamp();
            using var scope = NewDisposeScope();
            Tensor? loss = null;
            Phase("forward and backward", () => loss = step.ForwardBackward(batch, 1.0 / batch.Targets.Length, null).Loss);
            Phase("clip", () => optimizer.ClipGradients(1));
            Phase("optimizer", () => optimizer.Step(1e-4));
            Phase("zero", optimizer.ZeroGrad);
            Phase("pack", step.AdapterChanged);
            losses.Add(Math.Round(loss!.item<float>() / batch.Targets.Length, 4)); // waits for the device
            if (i == 0)
            {
                first = Stopwatch.GetElapsedTime(started).TotalSeconds;
            }

            times.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
            tokens.Add(batch.TokenCount);
        }

        var warmUp = Math.Min(WarmUp, steps - 1);
        var measured = times.Skip(warmUp).Order().ToList();
        var rate = @case.Chats ? tokens.Skip(warmUp).Sum() / times.Skip(warmUp).Sum() : tokens[0] / measured[measured.Count / 2];
        var result = new Dictionary<string, object>
        {
            ["case"] = name,
            ["tokens_per_second"] = Math.Round(rate),
            ["first_step_seconds"] = Math.Round(first, 1),
            ["first_loss"] = losses[0],
            ["last_loss"] = losses[^1],
            ["step"] = plan.Length > 0 ? plan : step.Description,
        };
        if (phases)
        {
            result["phases_ms"] = clock.ToDictionary(phase => phase.Key, phase => Math.Round(phase.Value.Order().ElementAt(phase.Value.Count / 2), 2));
        }

        if (onGpu)
        {
            result["memory_gib"] = Math.Round(NvidiaMemory.UsedGib(device.index) - before, 1);
        }

        return result;

        void Phase(string what, Action run)
        {
            var begun = Stopwatch.GetTimestamp();
            run();
            if (phases)
            {
                Note($"{what}, host"); // how long the program took to say what is to be done
                if (onGpu)
                {
                    cuda.synchronize();
                }

                Note(what);
            }

            void Note(string name)
            {
                clock.TryAdd(name, []);
                clock[name].Add(Stopwatch.GetElapsedTime(begun).TotalMilliseconds);
            }
        }
    }

    /// <summary>The step of a tier on a device.</summary>
    public static ITrainingStep Step(
        string tier, ActivationPlan? plan, CausalLanguageModel model, Adapter adapter, Device device, Action<string>? report, bool overlaps = false)
    {
        if (tier == "plain")
        {
            return new AutogradStep(model, adapter);
        }

        BlockKernels kernels = device.type is DeviceType.CUDA ? new CudaBlockKernels(device.index, overlaps) : new CpuBlockKernels();
        return new FastLlamaStep(model, adapter, kernels, plan, report);
    }

    private static SftBatch Rows(int count, int length, int vocabulary)
    {
        var random = new Random(0);
        return SftBatch.Of(Enumerable.Range(0, count).Select(_ => Row(random, length, vocabulary)));
    }

    /// <summary>Chats with exponential lengths between 50 and 800 tokens (mean 234), packed into batches of about 16,384.</summary>
    private static List<SftBatch> Chats(int vocabulary)
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

            rows.Add(Row(random, length, vocabulary));
            held += length;
        }

        return batches;
    }

    public static TrainingRow Row(Random random, int length, int vocabulary) =>
        new([.. Enumerable.Range(0, length).Select(_ => random.Next(vocabulary))], [.. Enumerable.Repeat(true, length)], 1);
}
