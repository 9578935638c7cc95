using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdaLora;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;

namespace PeftServer.Engine.Tests.Training;

/// <summary>Methods that want more of a run than gradients: data before they start, a say in every step, memory from step to step.</summary>
public sealed class MethodRunTests
{
    private static readonly string[] Texts = [.. Enumerable.Range(0, 9).Select(i =>
        $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", i + 1))}}"}""")];

    private static readonly string[] Pairs = [.. Enumerable.Range(0, 6).Select(i =>
        $$"""{"prompt": "Colour {{i}}: ", "chosen": "blue {{i}}", "rejected": "a very long red {{i}}"}""")];

    [Theory]
    [InlineData("""{ "init_lora_weights": "eva", "eva_config": { "rho": 2 }, "r": 4 }""", false)]
    [InlineData("""{ "init_lora_weights": "eva", "r": 2 }""", true)]
    [InlineData("""{ "init_lora_weights": "corda", "corda_config": { "corda_method": "kpm" }, "r": 4 }""", false)]
    [InlineData("""{ "init_lora_weights": "lora_ga", "r": 4 }""", false)]
    [InlineData("""{ "init_lora_weights": "lora_ga", "lora_ga_config": { "direction": "random", "scale": "weight_svd" }, "r": 4 }""", true)]
    public void Run_StartFromData_LearnsAndLoadsOnTheBaseAsItIs(string settings, bool ofPairs)
    {
        var peft = Parse("LORA", settings);
        using var run = new TrainingRun(
            ofPairs ? Pairs : Texts, new TrainingMethod { Type = ofPairs ? TrainingMethodType.Dpo : TrainingMethodType.Supervised },
            arguments => arguments with { MaxSteps = 12, LearningRate = 2e-3, PerDeviceTrainBatchSize = 8 }, peft: peft);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Messages.ShouldContain("through the model to start the adapter");
        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(Samples.TinyLlama, CPU, ScalarType.Float32);
        using var adapter = AdapterFile.Load(Path.GetDirectoryName(run.Weights)!, model);
        ((LoraConfig)adapter.Config).InitLoraWeights.Name.ShouldBe(((LoraConfig)peft).InitLoraWeights.Name == "eva" ? "eva" : "true");
    }

    [Theory]
    [InlineData("ADALORA", """{ "init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 1 }""")]
    [InlineData("ADAMSS", """{ "r": 8, "num_subspaces": 3, "use_asa": true, "asa_target_subspaces": 4, "init_warmup": 0, "final_warmup": 4, "mask_interval": 2 }""")]
    [InlineData("LORA", """{ "r": 4, "kasa_config": { "beta": 0.1, "gamma": 0.1 } }""")]
    [InlineData("LORA", """{ "r": 4, "monteclora_config": { "num_samples": 2, "kl_loss_weight": 0.01, "use_entropy": true } }""")]
    [InlineData("LORA", """{ "r": 4, "velora_config": { "num_groups": 8, "init_type": "batch_average_once" } }""")]
    [InlineData("LORA", """{ "r": 4, "init_lora_weights": "corda" }""")]
    public void Run_StoppedAndRunAgain_GivesTheSameBytes(string method, string settings)
    {
        using var whole = new TrainingRun(Texts, peft: Parse(method, settings));
        whole.Run().ShouldBe(TrainingOutcome.Succeeded);

        using var stopped = new TrainingRun(Texts, peft: Parse(method, settings));
        stopped.Run(3, StopRequest.Pause).ShouldBe(TrainingOutcome.Paused);
        stopped.Run().ShouldBe(TrainingOutcome.Succeeded);

        stopped.Losses.ShouldBe(whole.Losses);
        File.ReadAllBytes(stopped.Weights).AsSpan().SequenceEqual(File.ReadAllBytes(whole.Weights)).ShouldBeTrue();
    }

    [Fact]
    public void Run_AdaLora_SavesTheRanksThatAreLeft()
    {
        using var run = new TrainingRun(Texts, peft: new AdaLoraConfig { InitR = 4, TargetR = 2, Tinit = 1, Tfinal = 1 });

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        var saved = (AdaLoraConfig)AdapterFile.ReadConfig(Path.GetDirectoryName(run.Weights)!);
        var (left, modules) = (saved.RankPattern!.Values.Sum(pattern => pattern.Count(on => on)), saved.RankPattern.Count);
        left.ShouldBe(2 * modules);
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(Samples.TinyLlama, CPU, ScalarType.Float32);
        using var adapter = AdapterFile.Load(Path.GetDirectoryName(run.Weights)!, model);
        adapter.State.Where(entry => entry.Key.EndsWith("lora_E", StringComparison.Ordinal)).Sum(entry => entry.Weight.Shape[0]).ShouldBe(left);
    }

    private static AdapterConfig Parse(string method, string settings) =>
        JsonSerializer.Deserialize<AdapterConfig>($$"""{ "peft_type": "{{method}}", "target_modules": ["q_proj", "v_proj"], {{settings.Trim()[1..]}}""", PeftJson.Options)!;
}
