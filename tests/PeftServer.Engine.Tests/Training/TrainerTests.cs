using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Poly;
using PeftServer.Engine.Adapters.PrefixTuning;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Tests.Training;

public sealed class TrainerTests
{
    private static readonly string[] Pairs = [.. Enumerable.Range(0, 6).Select(i =>
        $$"""{"prompt": "Colour {{i}}: ", "chosen": "blue {{i}}", "rejected": "a very long red {{i}}"}""")];

    private static readonly string[] Judged = [.. Enumerable.Range(0, 8).Select(i =>
        $$"""{"prompt": "Colour {{i}}: ", "completion": "{{(i % 2 == 0 ? "blue" : "a very long red")}} {{i}}", "label": {{(i % 2 == 0 ? "true" : "false")}}}""")];

    private static readonly string[] Texts = [.. Enumerable.Range(0, 9).Select(i =>
        $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", i + 1))}}"}""")];

    [Theory]
    [InlineData(TrainingMethodType.Dpo)]
    [InlineData(TrainingMethodType.Cpo)]
    [InlineData(TrainingMethodType.Simpo)]
    [InlineData(TrainingMethodType.Orpo)]
    [InlineData(TrainingMethodType.Kto)]
    public void Run_PreferenceMethod_PrefersTheChosen(TrainingMethodType type)
    {
        using var run = new TrainingRun(type is TrainingMethodType.Kto ? Judged : Pairs, new TrainingMethod { Type = type }, arguments => arguments with { MaxSteps = 12 });

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses.Count.ShouldBe(12);
        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        var margins = run.Metrics("train_rewards/margins").ToList();
        margins[^1].ShouldBeGreaterThan(margins[0]);
        File.Exists(run.Weights).ShouldBeTrue();
    }

    [Fact]
    public void Run_DpoBeforeTheFirstUpdate_HasLossLogTwo()
    {
        using var run = new TrainingRun(Pairs, new TrainingMethod { Type = TrainingMethodType.Dpo }, arguments => arguments with { MaxSteps = 1 });

        run.Run();

        run.Losses[0].ShouldBe(Math.Log(2), 1e-6); // policy and reference are the same: B starts at zero
    }

    [Fact]
    public void Run_PairsForKto_LearnsBothSides()
    {
        using var run = new TrainingRun(Pairs, new TrainingMethod { Type = TrainingMethodType.Kto }, arguments => arguments with { MaxSteps = 2, PerDeviceTrainBatchSize = 12 });

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Metrics("train_rewards/chosen").Count().ShouldBe(2);
        run.Metrics("train_rewards/rejected").Count().ShouldBe(2);
    }

    [Fact]
    public void Run_RowsOfAnotherFormat_SaysWhatIsMissing()
    {
        using var run = new TrainingRun(Texts, new TrainingMethod { Type = TrainingMethodType.Dpo });

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldContain("chosen and rejected");
    }

    [Fact]
    public void Run_SettingOutOfRange_NamesTheField()
    {
        using var run = new TrainingRun(Pairs, new TrainingMethod { Type = TrainingMethodType.Dpo, Dpo = new DpoSettings { Beta = -1 } });

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldContain("Beta");
    }

    /// <summary>Methods that train more than they save, or draw in training.</summary>
    public static TheoryData<string> MethodsWithMore => ["P_TUNING", "PREFIX_TUNING", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "ADAPTION_PROMPT"];

    [Theory]
    [MemberData(nameof(MethodsWithMore))]
    public void Run_PausedAndResumed_GivesTheSameAdapter(string method)
    {
        var settings = new JsonObject { ["peft_type"] = method };
        if (method is "CPT")
        {
            settings["cpt_token_ids"] = new JsonArray(5, 6, 7, 8);
            settings["cpt_tokens_type_mask"] = new JsonArray(1, 2, 3, 4);
        }

        var peft = settings.Deserialize<AdapterConfig>(PeftJson.Options)!;
        using var whole = new TrainingRun(Texts);
        using var paused = new TrainingRun(Texts);
        using var straight = new TrainingRun(Texts) { Spec = whole.Spec with { Peft = peft } };
        using var stopped = new TrainingRun(Texts) { Spec = paused.Spec with { Peft = peft } };

        straight.Run().ShouldBe(TrainingOutcome.Succeeded);
        stopped.Run(3, StopRequest.Pause).ShouldBe(TrainingOutcome.Paused);
        stopped.Run().ShouldBe(TrainingOutcome.Succeeded);

        File.ReadAllBytes(stopped.Weights).ShouldBe(File.ReadAllBytes(straight.Weights));
        straight.Losses.ShouldAllBe(loss => double.IsFinite(loss));
    }

    [Fact]
    public void Run_TaskThatTheMethodDoesNotKnow_NamesTheLine()
    {
        using var rows = new TrainingRun([Texts[0], Texts[1].Replace("{", "{\"task_id\": 2, ", StringComparison.Ordinal)]);
        using var run = new TrainingRun([]) { Spec = rows.Spec with { Peft = new PolyConfig { NTasks = 2 } } };

        var fault = Should.Throw<TrainingException>(() => run.Run());

        fault.Message.ShouldContain("line 2");
        fault.Message.ShouldContain("There is no task 2: the adapter has 2");
    }

    [Fact]
    public void Run_PromptLongerThanTheModel_SaysSo()
    {
        using var rows = new TrainingRun(Texts);
        using var run = new TrainingRun(Texts) { Spec = rows.Spec with { Peft = new PrefixTuningConfig { NumVirtualTokens = 1024 } } };

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldContain("num_virtual_tokens");
    }

    [Theory]
    [InlineData(1, StopRequest.Pause, OptimizerName.AdamwTorch)]
    [InlineData(3, StopRequest.Abandon, OptimizerName.AdamwTorch)]
    [InlineData(4, StopRequest.Pause, OptimizerName.Adafactor)]
    [InlineData(5, StopRequest.Abandon, OptimizerName.Lion)]
    [InlineData(3, StopRequest.Pause, OptimizerName.Adamw8Bit)]
    public void Run_StoppedAndRunAgain_GivesTheSameBytes(int step, StopRequest stop, OptimizerName optimizer)
    {
        using var whole = new TrainingRun(Texts, change: arguments => arguments with { Optim = optimizer });
        whole.Run().ShouldBe(TrainingOutcome.Succeeded);

        using var stopped = new TrainingRun(Texts, change: arguments => arguments with { Optim = optimizer });
        stopped.Run(step, stop).ShouldBe(stop is StopRequest.Pause ? TrainingOutcome.Paused : TrainingOutcome.Abandoned);
        stopped.Run().ShouldBe(TrainingOutcome.Succeeded);

        stopped.Losses.ShouldBe(whole.Losses);
        File.ReadAllBytes(stopped.Weights).AsSpan().SequenceEqual(File.ReadAllBytes(whole.Weights)).ShouldBeTrue();
    }

    [Fact]
    public void Run_Packed_LearnsFromEveryRowInOneStepAsUnpackedDoes()
    {
        TrainingArguments OneStep(TrainingArguments arguments) => arguments with { MaxSteps = 1, PerDeviceTrainBatchSize = 64, Optim = OptimizerName.Sgd, MaxGradNorm = 0 };
        using var plain = new TrainingRun(Texts, change: OneStep, dropout: 0);
        using var packed = new TrainingRun(Texts, change: arguments => OneStep(arguments) with { Packing = true, MaxLength = 48 }, dropout: 0);

        plain.Run().ShouldBe(TrainingOutcome.Succeeded);
        packed.Run().ShouldBe(TrainingOutcome.Succeeded);

        packed.Messages.ShouldContain("Packed 9 rows into ");
        packed.Losses[0].ShouldBe(plain.Losses[0], 1e-5 * plain.Losses[0]);
        packed.Metrics("grad_norm").Single().ShouldBe(plain.Metrics("grad_norm").Single(), 1e-4 * plain.Metrics("grad_norm").Single());
    }

    [Fact]
    public void Run_AccumulatedMicroBatches_GivesTheLossOfOneBatch()
    {
        using var whole = new TrainingRun(Texts, change: arguments => arguments with { MaxSteps = 1, PerDeviceTrainBatchSize = 8 }, dropout: 0);
        using var parts = new TrainingRun(Texts, change: arguments => arguments with { MaxSteps = 1, PerDeviceTrainBatchSize = 2, GradientAccumulationSteps = 4 }, dropout: 0);

        whole.Run();
        parts.Run();

        parts.Losses[0].ShouldBe(whole.Losses[0], 1e-5 * whole.Losses[0]);
    }

    [Fact]
    public void Spec_MethodWithItsObject_IsReadByName()
    {
        var method = JsonSerializer.Deserialize<TrainingMethod>("""{"type": "dpo", "dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5], "beta": 0.2}}""", PeftJson.Options)!;

        method.Settings.ShouldBeOfType<DpoSettings>().LossType.Values.ShouldBe([DpoLossType.Sigmoid, DpoLossType.Sft]);
        method.Faults().ShouldBeEmpty();
    }
}
