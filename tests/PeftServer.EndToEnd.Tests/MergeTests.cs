using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Cli;

namespace PeftServer.EndToEnd.Tests;

/// <summary>What a run has learnt becomes a base: it says what base and adapter say, is trained on from, and is served.</summary>
public sealed class MergeTests : IDisposable
{
    private const string Prompt = "Number 3: ";
    private const string Lora = """{"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": "all-linear"}""";

    /// <summary>Every weight trains, embedding and head too, which share one in the base.</summary>
    private const string Full = """
        {"peft_type": "LN_TUNING", "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
         "input_layernorm", "post_attention_layernorm", "norm", "embed_tokens", "lm_head"]}
        """;

    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(3);
    private readonly Sandbox _sandbox = new();

    private static string Base => Path.Combine(AppContext.BaseDirectory, "samples", "models", "tiny-llama");

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Root => Path.Combine(Path.GetDirectoryName(_sandbox.Data)!, "models");

    public void Dispose() => _sandbox.Dispose();

    [Theory]
    [InlineData(Lora, 5e-3, false)]
    [InlineData(Full, 1e-3, true)]
    public async Task Merge_OfAFinishedRun_SaysWhatBaseAndAdapterSay(string peft, double rate, bool unties)
    {
        var run = await TrainAsync("run", Base, peft, rate);
        var merged = Path.Combine(Root, "merged");
        await RunAsync(ExitCode.Done, "merge", "--run", run, "--output", merged, "--dtype", "float32", "--max-shard-size", "4000000");

        var weights = JsonNode.Parse(await File.ReadAllTextAsync(Path.Combine(merged, "model.safetensors.index.json"), Token))!["weight_map"]!.AsObject();
        weights.Select(entry => (string)entry.Value!).Distinct().ShouldAllBe(file => File.Exists(Path.Combine(merged, file)));
        weights.Select(entry => (string)entry.Value!).Distinct().Count().ShouldBeGreaterThan(2);
        weights.ContainsKey("lm_head.weight").ShouldBe(unties);
        ((bool)JsonNode.Parse(await File.ReadAllTextAsync(Path.Combine(merged, "config.json"), Token))!["tie_word_embeddings"]!).ShouldBe(!unties);
        (await RunAsync(ExitCode.Usage, "merge", "--run", run, "--output", merged)).ShouldContain("is there already");

        var adapted = await GenerateAsync("--model", Base, "--adapter", Path.Combine(run, "adapter"));
        (await GenerateAsync("--model", merged)).ShouldBe(adapted);
        (await GenerateAsync("--model", Base)).ShouldNotBe(adapted);
    }

    [Fact]
    public async Task Merge_OfACheckpoint_IsTrainedOnFromAndServed()
    {
        var run = await TrainAsync("run", Base, Lora, 5e-3);
        var (early, last) = (Path.Combine(Root, "early"), Path.Combine(Root, "last"));
        (await RunAsync(ExitCode.Failed, "merge", "--run", run, "--step", "3", "--output", early)).ShouldContain("there are some after 2, 4");
        (await RunAsync(ExitCode.Done, "merge", "--run", run, "--step", "2", "--output", early)).ShouldContain("the checkpoint after step 2");
        await RunAsync(ExitCode.Done, "merge", "--model", Base, "--adapter", Path.Combine(run, "adapter"), "--output", last);
        File.ReadAllBytes(Path.Combine(early, "model.safetensors")).ShouldNotBe(File.ReadAllBytes(Path.Combine(last, "model.safetensors")));

        var losses = new List<double>();
        foreach (var (name, start) in new[] { ("from-base", Base), ("from-early", early), ("from-last", last) })
        {
            losses.Add(FirstLossOf(await TrainAsync(name, start, Lora, 5e-3)));
        }

        losses.ShouldBe(losses.OrderDescending()); // each has learnt more of these rows

        await using var up = await PeftServerProgram.UpAsync(_sandbox, "--set", "Worker:Devices=cpu", "--set", "Inference:Device=cpu", "--set", $"Models:Root={Root}");
        using var client = new HttpClient { BaseAddress = up.Address("api") };
        var answer = await client.PostAsJsonAsync("/v1/completions", new { model = "last", prompt = Prompt, max_tokens = 8, temperature = 0 }, Token);
        answer.IsSuccessStatusCode.ShouldBeTrue(await answer.Content.ReadAsStringAsync(Token));
        ((string)JsonNode.Parse(await answer.Content.ReadAsStringAsync(Token))!["choices"]![0]!["text"]!).Trim().ShouldBe((await GenerateAsync("--model", last)).Trim());
    }

    private static async Task<string> GenerateAsync(params string[] model) => await RunAsync(ExitCode.Done, ["generate", .. model, "--prompt", Prompt, "--max-tokens", "8", "--device", "cpu"]);

    private static async Task<string> RunAsync(int expected, params string[] arguments)
    {
        await using var program = PeftServerProgram.Start(arguments);
        (await program.ExitedAsync(Limit)).ShouldBe(expected, program.Output);
        return program.Output;
    }

    private static double FirstLossOf(string run) => File.ReadLines(Path.Combine(run, "events.jsonl"))
        .Select(line => JsonNode.Parse(line)!["data"]?["train_loss"]).First(loss => loss is not null)!.GetValue<double>();

    private async Task<string> TrainAsync(string name, string model, string peft, double rate)
    {
        var folder = Directory.CreateDirectory(Path.Combine(Path.GetDirectoryName(_sandbox.Data)!, name)).FullName;
        await File.WriteAllLinesAsync(Path.Combine(folder, "rows.jsonl"), Enumerable.Range(0, 8).Select(i => $$"""{"prompt": "Number {{i}}: ", "completion": "word word word"}"""), Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "spec.json"), JsonSerializer.Serialize(new
        {
            model,
            model_name = Path.GetFileName(model),
            training_file = "rows.jsonl",
            peft = JsonNode.Parse(peft),
            training = new { max_steps = 6, per_device_train_batch_size = 4, learning_rate = rate, lr_scheduler_type = "constant", save_steps = 2, save_total_limit = 2 },
            device = "cpu",
        }), Token);
        await RunAsync(ExitCode.Done, "train", "--spec", Path.Combine(folder, "spec.json"));
        return folder;
    }
}
