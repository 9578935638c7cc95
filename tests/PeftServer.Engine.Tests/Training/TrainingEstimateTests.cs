using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Training;

namespace PeftServer.Engine.Tests.Training;

public sealed class TrainingEstimateTests
{
    private static readonly string[] Texts = [.. Enumerable.Range(0, 9).Select(i =>
        $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", i + 1))}}"}""")];

    [Fact]
    public void Of_ARun_CountsWhatItDoes()
    {
        using var run = new TrainingRun(Texts, change: arguments => arguments with { MaxSteps = -1, NumTrainEpochs = 2 });

        var estimate = Estimate(run);
        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        estimate.Steps.ShouldBe(run.Losses.Count);
        ((double)estimate.Tokens).ShouldBe(run.Metrics("tokens").Last());
        run.Messages.ShouldContain($"trainable params: {estimate.Parameters.Trainable:N0} ");
        estimate.Memory.Weights.ShouldBeInRange(estimate.Parameters.Base * 4, estimate.Parameters.Base * 5);
        estimate.Memory.Activations.ShouldBeGreaterThan(1 << 20);
    }

    public static readonly TheoryData<string, string, TrainingMethodType, bool> Runs = new()
    {
        { "pack", """{"text": "one two three ROW four"}""", TrainingMethodType.Supervised, true },
        { "pretrain", """{"text": "one two three ROW four five six seven eight nine ten"}""", TrainingMethodType.Pretraining, false },
        { "pretrain, packed", """{"text": "one two three ROW four five six seven eight nine ten"}""", TrainingMethodType.Pretraining, true },
        { "dpo", """{"prompt": "Colour ROW: ", "chosen": "blue ROW", "rejected": "a long red"}""", TrainingMethodType.Dpo, false },
        { "orpo", """{"prompt": "Colour ROW: ", "chosen": "blue ROW", "rejected": "a long red"}""", TrainingMethodType.Orpo, false },
        { "kto", """{"prompt": "Colour ROW: ", "chosen": "blue ROW", "rejected": "a long red"}""", TrainingMethodType.Kto, false },
        { "reward", """{"prompt": "Colour ROW: ", "chosen": "blue ROW", "rejected": "a long red"}""", TrainingMethodType.Reward, false },
        { "embed", """{"anchor": "number ROW", "positive": "the number ROW"}""", TrainingMethodType.Embedding, false },
    };

    [Theory]
    [MemberData(nameof(Runs))]
    public void Of_AnyMethod_ForetellsStepsTokensAndOperations(string name, string row, TrainingMethodType type, bool packing)
    {
        var rows = Enumerable.Range(0, 11).Select(i => row.Replace("ROW", string.Concat(Enumerable.Repeat($"{i} ", i + 1)), StringComparison.Ordinal));
        var peft = new LoraConfig { R = 4, ModulesToSave = type is TrainingMethodType.Reward ? ["score"] : null };
        using var run = new TrainingRun(
            rows, new TrainingMethod { Type = type },
            a => a with { MaxSteps = -1, NumTrainEpochs = 1.5, PerDeviceTrainBatchSize = 3, GradientAccumulationSteps = 2, Packing = packing, MaxLength = 24, LoggingSteps = 1 }, peft: peft);
        using var measured = new TrainingRun(rows) { Spec = run.Spec with { PeakTflops = 1 } };
        File.WriteAllLines(measured.Spec.TrainingFile, rows);

        var estimate = Estimate(measured);
        measured.Run().ShouldBe(TrainingOutcome.Succeeded, name);

        estimate.Steps.ShouldBe(measured.Losses.Count);
        ((double)estimate.Tokens).ShouldBe(measured.Metrics("tokens").Last());
        var seconds = measured.Metrics("tokens").Last() / measured.Metrics("tokens_per_second").Last(); // fewer steps than its mean covers
        estimate.Flops.ShouldBe(measured.Metrics("mfu").Last() * 1e12 * seconds, 1e-6 * estimate.Flops);
    }

    private static TrainingEstimate Estimate(TrainingRun run) => TrainingEstimate.Of(run.Spec, CPU, ScalarType.Float32, () => 0, long.MaxValue);

    [Fact]
    public void Of_RowsThatCannotBeUsed_SaysWhy()
    {
        using var run = new TrainingRun(Texts, new TrainingMethod { Type = TrainingMethodType.Dpo });

        Should.Throw<TrainingException>(() => Estimate(run)).Message.ShouldContain("chosen and rejected");
    }
}
