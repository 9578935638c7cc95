using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Training;

/// <summary>Memory that runs out in the trial of the longest rows, in a step, in an evaluation: batches get smaller, what comes out stays.</summary>
[Collection("what a GPU's memory holds")] // one at a time: the allocator counts for all
public sealed class OutOfMemoryTests
{
    public enum Place
    {
        Trial,
        Step,
        Evaluation,
    }

    [Theory]
    [InlineData(TrainingMethodType.Supervised, false, false, Place.Trial)]
    [InlineData(TrainingMethodType.Supervised, false, false, Place.Step)]
    [InlineData(TrainingMethodType.Supervised, false, false, Place.Evaluation)]
    [InlineData(TrainingMethodType.Supervised, true, false, Place.Trial)]
    [InlineData(TrainingMethodType.Supervised, true, false, Place.Step)]
    [InlineData(TrainingMethodType.Supervised, true, false, Place.Evaluation)]
    [InlineData(TrainingMethodType.Supervised, true, true, Place.Step)]
    [InlineData(TrainingMethodType.Dpo, false, false, Place.Trial)]
    [InlineData(TrainingMethodType.Dpo, false, false, Place.Step)]
    [InlineData(TrainingMethodType.Dpo, false, false, Place.Evaluation)]
    [InlineData(TrainingMethodType.Simpo, false, false, Place.Step)]
    [InlineData(TrainingMethodType.Orpo, false, false, Place.Step)]
    [InlineData(TrainingMethodType.Classification, false, false, Place.Trial)]
    [InlineData(TrainingMethodType.Classification, false, false, Place.Step)]
    [InlineData(TrainingMethodType.Classification, false, false, Place.Evaluation)]
    public void Run_MemoryRunsOut_MakesBatchesSmallerAndChangesNothing(TrainingMethodType type, bool packing, bool fast, Place place)
    {
        using var whole = Create(type, packing, fast);
        using var split = Create(type, packing, fast);
        whole.Run().ShouldBe(TrainingOutcome.Succeeded);

        var calls = 0;
        Action<int> full = size => _ = size > 1 ? throw new InvalidOperationException("CUDA out of memory. Tried to allocate 2.00 GiB.") : 0;
        split.Run(
            triesLongest: place is Place.Trial,
            beforeMicroBatch: size =>
            {
                if (place is Place.Trial || (place is Place.Step && ++calls > 1))
                {
                    full(size); // a step into the run where no trial has found it
                }
            },
            beforeEvaluation: place is Place.Evaluation ? full : null).ShouldBe(TrainingOutcome.Succeeded);

        split.Messages.ShouldContain(place is Place.Evaluation
            ? "rows of the evaluation does not fit into memory; from here on it is 1."
            : "rows does not fit into memory; from here on it is 1.");
        var (said, step) = (split.Messages.IndexOf("does not fit into memory", StringComparison.Ordinal), split.Messages.IndexOf("Step 1/", StringComparison.Ordinal));
        (said < step).ShouldBe(place is not Place.Step, "the trial comes before the first step, and so does the evaluation its event has; a full step comes after");
        foreach (var name in new[] { "train_loss", "grad_norm", "tokens", "valid_loss", "train_rewards/margins", "valid_f1" })
        {
            var (ours, theirs) = (split.Metrics(name).ToList(), whole.Metrics(name).ToList());
            ours.Count.ShouldBe(theirs.Count);
            ours.Zip(theirs).ShouldAllBe(pair => Math.Abs(pair.First - pair.Second) <= 1e-6 + (1e-4 * Math.Abs(pair.Second)), name);
        }

        ShouldBeSame(split, whole);
    }

    [Theory]
    [InlineData(Place.Trial, "A micro-batch of 4 rows")]
    [InlineData(Place.Step, "A micro-batch of 4 rows")]
    [InlineData(Place.Evaluation, "A batch of the evaluation of 4 rows")]
    public void Run_RowsThatAreComparedDoNotFit_SaysWhatToLower(Place place, string what)
    {
        using var run = Create(TrainingMethodType.Embedding, packing: false, fast: false);
        Action<int> full = size => _ = size > 1 ? throw new InvalidOperationException("CUDA out of memory.") : 0;

        Should.Throw<TrainingException>(() => run.Run(
            triesLongest: place is Place.Trial, beforeMicroBatch: place is Place.Evaluation ? null : full, beforeEvaluation: place is Place.Evaluation ? full : null)).Message
            .ShouldStartWith($"{what} does not fit into memory, and its rows are compared with each other, so it cannot be split. Lower per_device_train_batch_size");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Run_GpuIsFull_SplitsInTheTrialAndTrains(bool fast)
    {
        Assert.SkipUnless(TorchLoader.TorchCuda != 0 && cuda.is_available(), "This host has no GPU that libtorch can use.");
        var mails = Enumerable.Range(0, 64).Select(i => $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat($"word {i} ", 150))}}"}""");
        using var run = new TrainingRun(mails, change: a => a with { MaxSteps = 2, PerDeviceTrainBatchSize = 64, Fast = fast, SaveSteps = null, SaveStrategy = SaveStrategy.No }, dropout: 0);
        using var onGpu = new TrainingRun(mails) { Spec = run.Spec with { Device = "cuda:0" } };
        var device = Devices.Parse("cuda:0");
        using var first = zeros(1, device: device); // the driver's context is there from here on
        using var filling = empty(Math.Max(0, CudaDriver.Memory().Free - (1L << 30)), dtype: ScalarType.Byte, device: device);

        onGpu.Run().ShouldBe(TrainingOutcome.Succeeded);

        if (!fast)
        {
            onGpu.Messages.ShouldContain("A micro-batch of 64 rows does not fit into memory"); // the hand-written step plans for what is there
        }
    }

    private static TrainingRun Create(TrainingMethodType type, bool packing, bool fast)
    {
        var rows = SmallRows.Of(type);
        var arguments = (TrainingArguments a) => a with
        {
            MaxSteps = 3,
            PerDeviceTrainBatchSize = 4,
            EvalSteps = 1,
            Optim = OptimizerName.Sgd,
            MaxGradNorm = 0,
            Fast = fast,
            Packing = packing,
            MaxLength = packing ? 24 : null,
        };
        var peft = new LoraConfig { R = 4, TargetModules = ModuleSelector.AllLinear, ModulesToSave = type is TrainingMethodType.Classification ? ["score"] : null };
        return new TrainingRun(rows, new TrainingMethod { Type = type }, arguments, evaluated: rows, peft: peft);
    }

    private static void ShouldBeSame(TrainingRun ours, TrainingRun theirs)
    {
        using var scope = NewDisposeScope();
        using var a = SafetensorsFile.Open(ours.Weights);
        using var b = SafetensorsFile.Open(theirs.Weights);
        foreach (var name in a.Header.Entries.Keys)
        {
            a.Tensor(name).allclose(b.Tensor(name), 1e-4, 1e-6).ShouldBeTrue(name);
        }
    }
}
