using System.IO.Compression;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Cli.Client;

namespace PeftServer.EndToEnd.Tests;

/// <summary>Every method from the upload of its rows to the adapter, two steps each, on one server.</summary>
public sealed class ObjectiveTests : IDisposable
{
    private static readonly (string Type, string Settings, string Model, string Row)[] Methods =
    [
        ("dpo", """{"beta": 0.2}""", "tiny-llama", """{"input": {"messages": [{"role": "user", "content": "N?"}]}, "preferred_output": [{"role": "assistant", "content": "yes"}], "non_preferred_output": [{"role": "assistant", "content": "no"}]}"""),
        ("cpo", "{}", "tiny-llama", """{"prompt": "N: ", "chosen": "yes", "rejected": "no"}"""),
        ("simpo", "{}", "tiny-llama", """{"prompt": "N: ", "chosen": "yes", "rejected": "no"}"""),
        ("orpo", "{}", "tiny-llama", """{"prompt": "N: ", "chosen": "yes", "rejected": "no"}"""),
        ("kto", "{}", "tiny-llama", """{"prompt": "N: ", "completion": "yes", "label": true}"""),
        ("reward", """{"center_rewards_coefficient": 0.01}""", "tiny-llama", """{"prompt": "N: ", "chosen": "yes", "rejected": "no"}"""),
        ("grpo", """{"num_generations": 2, "max_completion_length": 4, "grader": {"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}", "evaluation_metric": "fuzzy_match"}}""",
            "tiny-llama", """{"messages": [{"role": "user", "content": "N?"}], "answer": "the"}"""),
        ("pretraining", "{}", "tiny-llama", """{"text": "All good things come to an end N."}"""),
        ("supervised", """{"label_smoothing_factor": 0.1}""", "tiny-llama", """{"conversations": [{"from": "human", "value": "N?"}, {"from": "gpt", "value": "yes"}]}"""),
        ("classification", "{}", "tiny-llama", """{"text": "good N", "label": "LABEL"}"""),
        ("token_classification", "{}", "tiny-llama", """{"tokens": ["Rome", "is", "N"], "ner_tags": ["B-LOC", "O", "O"]}"""),
        ("question_answering", "{}", "bert", """{"question": "where is it", "context": "it is in rome today", "answers": {"text": ["rome"], "answer_start": [9]}}"""),
        ("seq2seq", "{}", "t5", """{"source": "it is a", "target": "is it"}"""),
        ("embedding", "{}", "bert", """{"anchor": "where is it", "positive": "in rome", "negative": "a"}"""),
    ];

    private readonly Sandbox _sandbox = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _sandbox.Dispose();

    [Fact]
    public async Task EveryMethod_FromRowsToAdapter_Works()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox, "--set", "Worker:Devices=cpu", "--set", "Inference:Device=cpu", "--set", $"Models:Root={WordModels.Create(_sandbox, "bert", "t5")}");
        using var api = new ApiClient(up.Address("api"), apiKey: null);
        var jobs = new List<(string Type, string Job)>();
        foreach (var (type, settings, model, row) in Methods)
        {
            var rows = Enumerable.Range(0, 4).Select(i => row.Replace("N", $"{i}", StringComparison.Ordinal).Replace("LABEL", i % 2 == 0 ? "ham" : "spam", StringComparison.Ordinal));
            var file = await api.UploadAsync(_sandbox.Write($"{type}.jsonl", string.Join('\n', rows)), Token);
            jobs.Add((type, await api.CreateJobAsync(new JsonObject
            {
                ["model"] = model,
                ["training_file"] = file,
                ["validation_file"] = file,
                ["method"] = new JsonObject { ["type"] = type, [type] = JsonNode.Parse(settings) },
                ["training"] = new JsonObject { ["max_steps"] = 2, ["per_device_train_batch_size"] = 2 },
            }, Token)));
        }

        foreach (var (type, job) in jobs)
        {
            var metrics = 0;
            await foreach (var said in api.FollowAsync(job, Token))
            {
                metrics += said.Metric("train_loss") is null ? 0 : 1;
            }

            var end = await api.GetJobAsync(job, Token);
            end.GetProperty("status").GetString().ShouldBe("succeeded", $"{type}: {end}");
            metrics.ShouldBe(2, type);
            await CheckAdapterAsync(api, type, end);
        }
    }

    private static async Task CheckAdapterAsync(ApiClient api, string type, JsonElement job)
    {
        using var bytes = new MemoryStream();
        await api.DownloadAdapterAsync(job.GetProperty("fine_tuned_model").GetString()!, bytes, Token);
        await using var archive = new ZipArchive(bytes);
        await using var config = await archive.GetEntry("adapter_config.json")!.OpenAsync(Token);
        var task = (await JsonDocument.ParseAsync(config, default, Token)).RootElement.GetProperty("task_type").GetString();
        task.ShouldBe(job.GetProperty("peft").GetProperty("task_type").GetString(), type);
        (archive.GetEntry("labels.json") is not null).ShouldBe(type is "classification" or "token_classification", type);
    }
}
