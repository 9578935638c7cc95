using PeftServer.Cli;
using PeftServer.Cli.Bench;

namespace PeftServer.EndToEnd.Tests;

/// <summary>Estimates beside real runs, as <c>peftserver bench estimate</c> has ten of them: two are done here.</summary>
public sealed class EstimateTests
{
    [Theory]
    [InlineData("lora")] // the hand-written step
    [InlineData("dpo")] // tensor code
    public void Estimate_OfARun_IsWhatItTakes(string name)
    {
        var root = Directory.CreateTempSubdirectory("peftserver-estimate-").FullName;
        try
        {
            var (told, held) = new EstimateBench([PeftServerProgram.Metadata("Program")], "cpu").Run(EstimateCase.OnCpu.Single(each => each.Name == name), root, steps: 3);

            told.Steps.ShouldBe(held.Steps);
            told.Tokens.ShouldBe(held.Tokens);
            Math.Abs(EstimateBench.Error(told, held)).ShouldBeLessThan(0.15, EstimateBench.Line(name, told, held));
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }

    [Fact]
    public async Task Estimate_OfAutoSettings_PicksThemAsTheRunDoes()
    {
        var folder = Directory.CreateTempSubdirectory("peftserver-estimate-").FullName;
        try
        {
            File.WriteAllLines(Path.Combine(folder, "rows.jsonl"), Enumerable.Range(0, 240).Select(i => $$"""{"prompt": "{{i}}: ", "completion": "yes"}"""));
            File.WriteAllText(Path.Combine(folder, "spec.json"), $$$"""
                {"model": "{{{Path.Combine(AppContext.BaseDirectory, "samples", "models", "tiny-llama")}}}", "model_name": "tiny-llama", "training_file": "rows.jsonl", "device": "cpu",
                 "peft": {"peft_type": "LORA", "r": "auto"}, "training": {"per_device_train_batch_size": "auto", "num_train_epochs": 2, "learning_rate": "auto"}}
                """);
            await using var estimate = PeftServerProgram.Start("estimate", "--spec", Path.Combine(folder, "spec.json"));
            (await estimate.ExitedAsync(TimeSpan.FromMinutes(2))).ShouldBe(ExitCode.Done, estimate.Output);
            await using var run = PeftServerProgram.Start("train", "--spec", Path.Combine(folder, "spec.json"));
            (await run.ExitedAsync(TimeSpan.FromMinutes(2))).ShouldBe(ExitCode.Done, run.Output);

            var picks = estimate.Output.Split('\n').Where(line => line.StartsWith("picked ", StringComparison.Ordinal)).Select(line => line["picked ".Length..].Trim()).ToList();
            picks.Count.ShouldBe(3, estimate.Output);
            picks.ShouldAllBe(pick => run.Output.Contains(pick, StringComparison.Ordinal));
            estimate.Output.ShouldContain("steps       120"); // 240 rows, 4 at a time, twice
            run.Output.ShouldContain("Trained 120 steps");
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
