using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Cli;
using PeftServer.Cli.Processes;

namespace PeftServer.EndToEnd.Tests;

/// <summary>A trainer that is killed at a random step and started again ends with the bytes of one that was left alone.</summary>
public sealed class KilledTrainerTests : IDisposable
{
    private const int Steps = 14;
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(3);
    private readonly Sandbox _sandbox = new();

    public static TheoryData<int> ManySeeds => [.. Enumerable.Range(2, 20)];

    private static string Model => Path.Combine(AppContext.BaseDirectory, "samples", "models", "tiny-llama");

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _sandbox.Dispose();

    [Fact]
    public Task Train_KilledAndStartedAgain_GivesTheSameBytes() => KillAndCompareAsync(seed: 1);

    [Theory]
    [Trait("Category", "Long")]
    [MemberData(nameof(ManySeeds))]
    public Task Train_KilledAtAnyStep_GivesTheSameBytes(int seed) => KillAndCompareAsync(seed);

    [Fact]
    public async Task Train_ManifestOfARun_DoesItAgain()
    {
        var first = MakeRun("first", seed: 7);
        await RunAsync(first);
        var again = Path.Combine(Path.GetDirectoryName(first)!, "again");
        string[] arguments =
            ["train", "--manifest", Path.Combine(first, "adapter", "training_manifest.json"), "--model", Model, "--training-file", Path.Combine(first, "rows.jsonl"), "--run", again];

        await using (var program = PeftServerProgram.Start([.. arguments, "--device", "cpu"]))
        {
            (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Done, program.Output);
        }

        ShouldBeSame(first, again);
        File.AppendAllText(Path.Combine(first, "rows.jsonl"), """{"text": "one more"}""");
        await using var refused = PeftServerProgram.Start([.. arguments]);
        (await refused.ExitedAsync(Limit)).ShouldBe(ExitCode.Usage);
        refused.Output.ShouldContain("sha256");
    }

    private async Task KillAndCompareAsync(int seed)
    {
        var random = new Random(seed);
        var (whole, killed) = (MakeRun("whole", seed), MakeRun("killed", seed));
        await RunAsync(whole);

        // Twice: what resumed is killed as well.
        foreach (var step in new[] { random.Next(1, Steps / 2), random.Next(Steps / 2, Steps) })
        {
            await using var program = PeftServerProgram.Start("train", "--spec", Path.Combine(killed, "spec.json"));
            while (StepsOf(killed) < step)
            {
                program.Output.ShouldNotContain("error");
                await Task.Delay(1, Token);
            }

            Posix.Kill(program.Id, Posix.SIGKILL);
            await program.ExitedAsync(Limit);
        }

        await RunAsync(killed);
        ShouldBeSame(whole, killed);
        File.ReadAllText(Path.Combine(killed, "events.jsonl")).ShouldContain("Going on from the checkpoint after step");
    }

    private static void ShouldBeSame(string one, string other)
    {
        foreach (var path in Directory.GetFiles(Path.Combine(one, "adapter")))
        {
            var twin = Path.Combine(other, "adapter", Path.GetFileName(path));
            File.ReadAllBytes(path).AsSpan().SequenceEqual(File.ReadAllBytes(twin)).ShouldBeTrue(Path.GetFileName(path));
        }
    }

    private static async Task RunAsync(string run)
    {
        await using var program = PeftServerProgram.Start("train", "--spec", Path.Combine(run, "spec.json"));
        (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Done, program.Output);
    }

    /// <summary>The newest step that the run has told.</summary>
    private static int StepsOf(string run)
    {
        var path = Path.Combine(run, "events.jsonl");
        if (!File.Exists(path))
        {
            return 0;
        }

        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var reader = new StreamReader(file);
        var text = reader.ReadToEnd();
        return text[..(text.LastIndexOf('\n') + 1)].Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => JsonNode.Parse(line)!["data"]?["step"]).Where(step => step is not null).Select(step => step!.GetValue<int>()).DefaultIfEmpty(0).Max();
    }

    private string MakeRun(string name, int seed)
    {
        var rows = Enumerable.Range(0, 20).Select(i => $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", (i % 7) + 1))}}"}""");
        var folder = Directory.CreateDirectory(Path.Combine(Path.GetDirectoryName(_sandbox.Data)!, name)).FullName;
        File.WriteAllLines(Path.Combine(folder, "rows.jsonl"), rows);
        File.WriteAllText(Path.Combine(folder, "spec.json"), JsonSerializer.Serialize(new
        {
            model = Model,
            model_name = "tiny-llama",
            training_file = "rows.jsonl",
            peft = new { peft_type = "LORA", r = 4, lora_dropout = 0.1 },
            training = new { max_steps = Steps, per_device_train_batch_size = 2, learning_rate = 5e-3, save_steps = 1 + (seed % 3), seed },
            device = "cpu",
        }));
        return folder;
    }
}
