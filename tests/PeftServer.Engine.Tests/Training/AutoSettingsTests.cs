using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Tests.Training;

public sealed class AutoSettingsTests
{
    private static readonly string[] Rows = [.. Enumerable.Range(0, 60).Select(i => $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", (i % 9) + 1))}}"}""")];

    [Theory]
    [InlineData(5_000, 0, 40, LearningRateSchedule.Cosine, 0.03)]
    [InlineData(10, 0, 40, LearningRateSchedule.Linear, 0.1)]
    public void Pick_Everything_FitsTheData(long rows, long cut, int longest, LearningRateSchedule schedule, double warmup)
    {
        var (training, peft, reasons) = Pick(rows, cut, longest, new TrainingMethod());

        training.LrSchedulerType.ShouldBe(schedule);
        training.WarmupRatio.ShouldBe(warmup);
        training.MaxLength.ShouldBe(longest);
        training.Optim.ShouldBe(OptimizerName.AdamwTorch);
        training.Packing.ShouldBeFalse();
        training.Bf16.ShouldBeNull();
        ((LoraConfig)peft).LoraAlpha.ShouldBe(2 * ((LoraConfig)peft).R);
        reasons.Count.ShouldBe(AutoSettings.Fields.Values.Distinct().Count());
        reasons.ShouldAllBe(reason => reason.Contains(" is auto: "));
        reasons.ShouldContain($"max_length is auto: {longest}, the longest row, so none is cut");
    }

    [Fact]
    public void Pick_ForGrpo_TakesWholeGroups()
    {
        var (training, peft, reasons) = Pick(500, 0, 40, new TrainingMethod { Type = TrainingMethodType.Grpo, Grpo = new GrpoSettings { NumGenerations = 12 } });

        training.PerDeviceTrainBatchSize.ShouldBe(12);
        ((LoraConfig)peft).R.ShouldBe(8);
        reasons.ShouldContain("batch_size is auto: 12, since completions are compared in groups of num_generations, 12");
    }

    [Fact]
    public void Pick_CutRowsAndPretraining_SaysSo()
    {
        var (training, _, reasons) = Pick(500, 7, 512, new TrainingMethod { Type = TrainingMethodType.Pretraining });

        training.Packing.ShouldBeTrue();
        reasons.ShouldContain("max_length is auto: 512, all that the model takes; 7 rows are longer and are cut");
    }

    [Fact]
    public void Resolve_SpecWithAuto_RunsWithWhatWasPicked()
    {
        using var run = new TrainingRun(Rows);
        var fields = JsonSerializer.SerializeToNode(run.Spec, PeftJson.Options)!.AsObject();
        fields["peft"] = new JsonObject { ["peft_type"] = "LORA", ["r"] = "auto", ["lora_alpha"] = "auto" };
        fields["training"] = new JsonObject { ["max_length"] = "auto", ["warmup_ratio"] = "auto", ["learning_rate"] = "auto", ["max_steps"] = 2 };
        var path = Path.Combine(run.Folder, TrainingSpec.FileName);
        File.WriteAllText(path, fields.ToJsonString());
        var said = new List<string>();

        var spec = AutoSettings.Resolve(TrainingSpec.Read(path), said.Add);

        said.Count.ShouldBe(5);
        (spec.Training.LearningRate, spec.Training.WarmupRatio, spec.Training.MaxSteps, ((LoraConfig)spec.Peft).R, ((LoraConfig)spec.Peft).LoraAlpha).ShouldBe((1e-3, 0.1, 2, 8, 16));
        spec.Auto.ShouldBeEmpty();
        using var picked = new TrainingRun(Rows) { Spec = spec };
        picked.Run().ShouldBe(TrainingOutcome.Succeeded);
    }

    [Theory]
    [InlineData("""{ "seed": "auto" }""", """{ "peft_type": "LORA" }""", "training.seed cannot be \"auto\". Those that can: training.num_train_epochs")]
    [InlineData("{}", """{ "peft_type": "IA3", "r": "auto" }""", "peft.r can be \"auto\" for LORA alone")]
    [InlineData("{}", """{ "peft_type": "LORA", "target_modules": "auto" }""", "peft.target_modules cannot be")]
    public void Read_AutoWhereThereIsNone_NamesTheField(string training, string peft, string message)
    {
        using var run = new TrainingRun(Rows);
        var fields = JsonSerializer.SerializeToNode(run.Spec, PeftJson.Options)!.AsObject();
        (fields["training"], fields["peft"]) = (JsonNode.Parse(training), JsonNode.Parse(peft));
        var path = Path.Combine(run.Folder, TrainingSpec.FileName);
        File.WriteAllText(path, fields.ToJsonString());

        Should.Throw<JsonException>(() => TrainingSpec.Read(path)).Message.ShouldContain(message);
    }

    private static AutoPicks Pick(long rows, long cut, int longest, TrainingMethod method) => AutoSettings.Pick(
        [.. AutoSettings.Fields.Values.Distinct()], new TrainingArguments(),
        new DataSummary { Rows = rows, Used = rows, Cut = cut, Split = 0, Skipped = 0, Tokens = rows * 20, TrainedTokens = rows * 5, LongestRow = longest, Reasons = new Dictionary<string, long>(), Notes = [] },
        method, new LoraConfig(), PretrainedModel.Plan(Samples.TinyLlama));
}
