using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Cli;

namespace PeftServer.EndToEnd.Tests;

/// <summary>A run whose grader asks an embedding model is done again from its manifest, which names that model.</summary>
public sealed class ManifestTests : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(3);
    private readonly Sandbox _sandbox = new();

    public void Dispose() => _sandbox.Dispose();

    [Fact]
    public async Task Train_ManifestOfARunGradedByEmbeddings_DoesItAgain()
    {
        var models = WordModels.Create(_sandbox, "bert");
        var (model, embedder) = (Path.Combine(models, "tiny-llama"), Path.Combine(models, "bert"));
        var first = MakeRun(model, embedder);
        await TrainAsync(ExitCode.Done, "--spec", Path.Combine(first, "spec.json"));

        var manifest = Path.Combine(first, "adapter", "training_manifest.json");
        ((string?)JsonNode.Parse(await File.ReadAllTextAsync(manifest, TestContext.Current.CancellationToken))!["embedding_models"]!["bert"])!.Length.ShouldBe(64);
        var again = Path.Combine(Path.GetDirectoryName(first)!, "again");
        string[] arguments = ["--manifest", manifest, "--model", model, "--training-file", Path.Combine(first, "rows.jsonl"), "--run", again];
        (await TrainAsync(ExitCode.Usage, arguments)).ShouldContain("embeds texts by 'bert', whose folder is not given");
        (await TrainAsync(ExitCode.Usage, [.. arguments, "--embedding-model", $"bert={model}"])).ShouldContain("'bert' is not what it was");
        (await TrainAsync(ExitCode.Usage, [.. arguments, "--embedding-model", embedder])).ShouldContain("NAME=DIR");

        await TrainAsync(ExitCode.Done, [.. arguments, "--embedding-model", $"bert={embedder}", "--device", "cpu"]);
        foreach (var path in Directory.GetFiles(Path.Combine(first, "adapter")))
        {
            File.ReadAllBytes(Path.Combine(again, "adapter", Path.GetFileName(path))).ShouldBe(File.ReadAllBytes(path), Path.GetFileName(path));
        }
    }

    private static async Task<string> TrainAsync(int expected, params string[] arguments)
    {
        await using var program = PeftServerProgram.Start(["train", .. arguments]);
        (await program.ExitedAsync(Limit)).ShouldBe(expected, program.Output);
        return program.Output;
    }

    private string MakeRun(string model, string embedder)
    {
        var folder = Directory.CreateDirectory(Path.Combine(Path.GetDirectoryName(_sandbox.Data)!, "first")).FullName;
        File.WriteAllLines(Path.Combine(folder, "rows.jsonl"), Enumerable.Range(0, 4).Select(i => $$"""{"messages": [{"role": "user", "content": "{{i}}?"}], "answer": "it is in rome"}"""));
        File.WriteAllText(Path.Combine(folder, "spec.json"), JsonSerializer.Serialize(new
        {
            model,
            model_name = "tiny-llama",
            training_file = "rows.jsonl",
            embedding_models = new { bert = embedder },
            peft = new { peft_type = "LORA", r = 4 },
            method = new
            {
                type = "grpo",
                grpo = new
                {
                    num_generations = 2,
                    max_completion_length = 4,
                    grader = new
                    {
                        type = "text_similarity",
                        input = "{{ sample.output_text }}",
                        reference = "{{ item.answer }}",
                        evaluation_metric = "cosine",
                        embedding_model = "bert",
                    },
                },
            },
            training = new { max_steps = 2, per_device_train_batch_size = 4, learning_rate = 5e-3 },
            device = "cpu",
        }));
        return folder;
    }
}
