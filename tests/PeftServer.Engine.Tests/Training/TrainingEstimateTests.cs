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

    private static TrainingEstimate Estimate(TrainingRun run) => TrainingEstimate.Of(run.Spec, CPU, ScalarType.Float32, () => 0, long.MaxValue);

    [Fact]
    public void Of_RowsThatCannotBeUsed_SaysWhy()
    {
        using var run = new TrainingRun(Texts, new TrainingMethod { Type = TrainingMethodType.Dpo });

        Should.Throw<TrainingException>(() => Estimate(run)).Message.ShouldContain("chosen and rejected");
    }
}
