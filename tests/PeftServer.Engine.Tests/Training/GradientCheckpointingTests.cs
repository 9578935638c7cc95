using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Tests.Training;

/// <summary>Runs whose activations are computed again on the way back, in tensor code: step by step they are those that keep them, draws included.</summary>
public sealed class GradientCheckpointingTests
{
    [Theory]
    [InlineData(TrainingMethodType.Supervised)]
    [InlineData(TrainingMethodType.Dpo)]
    [InlineData(TrainingMethodType.Orpo)]
    [InlineData(TrainingMethodType.Kto)]
    [InlineData(TrainingMethodType.Reward)]
    [InlineData(TrainingMethodType.Classification)]
    [InlineData(TrainingMethodType.Embedding)]
    public void Run_EveryObjective_LearnsTheSame(TrainingMethodType type)
    {
        ShouldLearnTheSame(SmallRows.Of(type), new TrainingMethod { Type = type }, new LoraConfig { R = 4, LoraDropout = 0.2 });
    }

    [Theory]
    [InlineData("LORA", """{ "r": 4, "monteclora_config": { "num_samples": 2 } }""")]
    [InlineData("LORA", """{ "r": 4, "velora_config": { "num_groups": 8, "init_type": "batch_average_once" } }""")]
    [InlineData("LORA", """{ "r": 4, "use_dora": true, "lora_dropout": 0.2 }""")]
    [InlineData("PVERA", """{ "r": 8, "pvera_dropout": 0.1 }""")]
    [InlineData("PVERA", """{ "r": 8, "generator_seed": 3 }""")]
    [InlineData("POLY", """{ "r": 4, "n_tasks": 1, "n_skills": 2 }""")]
    [InlineData("LOHA", """{ "r": 4, "rank_dropout": 0.3, "module_dropout": 0.3 }""")]
    public void Run_MethodsThatDraw_DrawTheSame(string method, string settings) => ShouldLearnTheSame(
        SmallRows.Texts, new TrainingMethod(), JsonSerializer.Deserialize<AdapterConfig>($$"""{ "peft_type": "{{method}}", "target_modules": ["q_proj", "v_proj"], {{settings.Trim()[1..]}}""", PeftJson.Options)!);

    [Fact]
    public void Run_TwoTextsAndSteps_LearnTheSameWithAccumulation() => ShouldLearnTheSame(
        SmallRows.Texts, new TrainingMethod(), new LoraConfig { R = 4, LoraDropout = 0.2 }, arguments => arguments with { GradientAccumulationSteps = 2, NeftuneNoiseAlpha = 5 });

    [Theory]
    [InlineData(TrainingMethodType.Embedding)]
    [InlineData(TrainingMethodType.Dpo)]
    public void Run_RowsThatDoNotFitAndCannotBeSplit_AreComputedAgainAndLearnTheSame(TrainingMethodType type)
    {
        var rows = SmallRows.Of(type);
        using var whole = Create(rows, new TrainingMethod { Type = type }, new LoraConfig { R = 4 }, again: null);
        using var full = Create(rows, new TrainingMethod { Type = type }, new LoraConfig { R = 4 }, again: null);
        whole.Run().ShouldBe(TrainingOutcome.Succeeded);

        full.Run(beforeMicroBatch: _ =>
        {
            if (!full.Messages.Contains("gradient_checkpointing", StringComparison.Ordinal))
            {
                throw new InvalidOperationException("CUDA out of memory.");
            }
        }).ShouldBe(TrainingOutcome.Succeeded);

        full.Messages.ShouldContain("cannot be split; from here on activations are computed again on the way back (gradient_checkpointing)");
        full.Losses.Zip(whole.Losses).ShouldAllBe(pair => Math.Abs(pair.First - pair.Second) <= 1e-4 * Math.Abs(pair.Second));
    }

    [Fact]
    public void Run_ForbiddenAndOneRowDoesNotFit_SaysWhatToDo()
    {
        using var run = Create(SmallRows.Texts, new TrainingMethod(), new LoraConfig { R = 4, LoraDropout = 0.1 }, again: false);

        Should.Throw<TrainingException>(() => run.Run(beforeMicroBatch: _ => throw new InvalidOperationException("CUDA out of memory."))).Message
            .ShouldStartWith("A single row does not fit into memory. Leave gradient_checkpointing = false out, lower max_length");
    }

    private static void ShouldLearnTheSame(string[] rows, TrainingMethod method, AdapterConfig peft, Func<TrainingArguments, TrainingArguments>? change = null)
    {
        using var kept = Create(rows, method, peft, again: false, change);
        using var again = Create(rows, method, peft, again: true, change);
        kept.Run().ShouldBe(TrainingOutcome.Succeeded);
        again.Run().ShouldBe(TrainingOutcome.Succeeded);

        again.Messages.ShouldContain("computed again");
        kept.Messages.ShouldNotContain("computed again");
        again.Losses.Count.ShouldBe(4);
        again.Losses.Zip(kept.Losses).ShouldAllBe(pair => Math.Abs(pair.First - pair.Second) <= 1e-6 + (1e-5 * Math.Abs(pair.Second)));
        again.Metrics("grad_norm").Zip(kept.Metrics("grad_norm")).ShouldAllBe(pair => Math.Abs(pair.First - pair.Second) <= 1e-6 + (1e-4 * pair.Second));
    }

    private static TrainingRun Create(
        string[] rows, TrainingMethod method, AdapterConfig peft, bool? again, Func<TrainingArguments, TrainingArguments>? change = null) => new(
        rows, method, arguments => (change ?? (a => a))(arguments with { MaxSteps = 4, Optim = OptimizerName.Sgd, LearningRate = 1e-2, Fast = false, GradientCheckpointing = again, SaveSteps = null, SaveStrategy = SaveStrategy.No }),
        peft: peft is LoraConfig lora && method.Type is TrainingMethodType.Classification ? lora with { ModulesToSave = ["score"] } : peft);
}
