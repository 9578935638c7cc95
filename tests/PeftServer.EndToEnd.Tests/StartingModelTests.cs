using System.IO.Compression;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Cli.Client;

namespace PeftServer.EndToEnd.Tests;

/// <summary>Jobs that go on from a fine-tuned model, through the API.</summary>
public sealed class StartingModelTests : IDisposable
{
    private readonly Sandbox _sandbox = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _sandbox.Dispose();

    [Fact]
    public async Task Job_OfAFineTunedModel_GoesOnFromItsAdapter()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox, "--set", "Worker:Devices=cpu", "--set", "Inference:Device=cpu");
        using var api = new ApiClient(up.Address("api"), apiKey: null);
        using var http = new HttpClient { BaseAddress = up.Address("api") };
        var texts = await UploadAsync(api, "texts", i => $$"""{"messages": [{"role": "user", "content": "Number {{i}}?"}, {"role": "assistant", "content": "It is {{i}}"}]}""");
        var pairs = await UploadAsync(api, "pairs", i => $$"""{"prompt": "N{{i}}: ", "chosen": "yes", "rejected": "no"}""");

        var first = await RunAsync(api, Request("tiny-llama", texts, steps: 4));
        var model = first.GetProperty("fine_tuned_model").GetString()!;
        var tuned = Request(model, pairs, steps: 2);
        tuned["method"] = new JsonObject { ["type"] = "dpo" };
        var second = await RunAsync(api, tuned);

        second.GetProperty("model").GetString().ShouldBe(model);
        second.GetProperty("peft").GetProperty("r").GetInt32().ShouldBe(4);
        var outcome = second.GetProperty("fine_tuned_model").GetString()!;
        outcome.ShouldStartWith("ft:tiny-llama:");
        (await api.ChatAsync(outcome, JsonNode.Parse("""[{ "role": "user", "content": "N1?" }]""")!, 3, Token)).ShouldNotBeNull();
        (await StartOfAsync(api, outcome))!.Length.ShouldBe(64);
        (await StartOfAsync(api, model)).ShouldBeNull();

        await CheckRefusalsAsync(http, model, texts);
        await CheckDeletedAsync(api, http, model, texts);
    }

    private static async Task CheckRefusalsAsync(HttpClient http, string model, string file)
    {
        var other = Request(model, file, steps: 1);
        other["peft"] = new JsonObject { ["peft_type"] = "LORA", ["r"] = 16 };
        (await ErrorAsync(http, other)).ShouldBe("peft.r");

        var same = Request(model, file, steps: 1);
        same["peft"] = new JsonObject { ["peft_type"] = "LORA", ["r"] = 4 };
        same["method"] = new JsonObject { ["type"] = "classification" };
        (await ErrorAsync(http, same)).ShouldBe("model");

        var unfounded = Request("tiny-llama", file, steps: 1);
        unfounded["method"] = new JsonObject { ["type"] = "dpo", ["dpo"] = new JsonObject { ["reference"] = "starting_adapter" } };
        (await ErrorAsync(http, unfounded)).ShouldBe("method.dpo.reference");
    }

    /// <summary>The one device is busy, so the job waits; its model goes meanwhile.</summary>
    private static async Task CheckDeletedAsync(ApiClient api, HttpClient http, string model, string file)
    {
        var busy = await api.CreateJobAsync(Request("tiny-llama", file, steps: 100_000), Token);
        await UntilAsync(api, busy, "running");
        var waiting = await api.CreateJobAsync(Request(model, file, steps: 1), Token);
        await UntilAsync(api, waiting, "queued");

        (await http.DeleteAsync(new Uri($"/v1/models/{Uri.EscapeDataString(model)}", UriKind.Relative), Token)).StatusCode.ShouldBe(HttpStatusCode.OK);
        (await http.PostAsync(new Uri($"/v1/fine_tuning/jobs/{busy}/cancel", UriKind.Relative), null, Token)).StatusCode.ShouldBe(HttpStatusCode.OK);
        var failed = await UntilAsync(api, waiting, "failed");

        var error = failed.GetProperty("error");
        (error.GetProperty("code").GetString(), error.GetProperty("param").GetString()).ShouldBe(("model_not_available", "model"));
        error.GetProperty("message").GetString().ShouldBe($"The model '{model}', which this job starts from, was deleted before the job ran. Create a new job from another model.");
    }

    private static JsonObject Request(string model, string file, int steps)
    {
        var request = new JsonObject
        {
            ["model"] = model,
            ["training_file"] = file,
            ["training"] = new JsonObject { ["max_steps"] = steps, ["per_device_train_batch_size"] = 2 },
        };
        if (model == "tiny-llama")
        {
            request["peft"] = new JsonObject { ["peft_type"] = "LORA", ["r"] = 4 };
        }

        return request;
    }

    private static async Task<JsonElement> RunAsync(ApiClient api, JsonObject request)
    {
        var (job, said, losses) = (await api.CreateJobAsync(request, Token), new List<string>(), new List<double>());
        await foreach (var each in api.FollowAsync(job, Token))
        {
            said.Add(each.Message);
            losses.AddRange(each.Metric("train_loss") is { } loss ? [loss] : []);
        }

        var end = await api.GetJobAsync(job, Token);
        end.GetProperty("status").GetString().ShouldBe("succeeded", end.ToString());
        if (request["method"] is not null)
        {
            said.ShouldContain(message => message.StartsWith("Going on from a trained adapter (LORA, sha256 ", StringComparison.Ordinal));
            said.ShouldContain("The reference is a frozen copy of the adapter that the run starts from.");
            ((float)losses[0]).ShouldBe((float)Math.Log(2));
        }

        return end;
    }

    private static async Task<JsonElement> UntilAsync(ApiClient api, string job, string status)
    {
        while (true)
        {
            var row = await api.GetJobAsync(job, Token);
            var now = row.GetProperty("status").GetString();
            if (now == status)
            {
                return row;
            }

            now.ShouldBeOneOf("validating_files", "queued", "running");
            await Task.Delay(50, Token);
        }
    }

    private static async Task<string?> ErrorAsync(HttpClient http, JsonObject request)
    {
        using var response = await http.PostAsJsonAsync(new Uri("/v1/fine_tuning/jobs", UriKind.Relative), request, Token);
        response.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        return (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error").GetProperty("param").GetString();
    }

    /// <summary>The digest of the adapter that a model's run started from, as its manifest has it.</summary>
    private static async Task<string?> StartOfAsync(ApiClient api, string model)
    {
        using var bytes = new MemoryStream();
        await api.DownloadAdapterAsync(model, bytes, Token);
        await using var archive = new ZipArchive(bytes);
        await using var manifest = await archive.GetEntry("training_manifest.json")!.OpenAsync(Token);
        var fields = (await JsonDocument.ParseAsync(manifest, default, Token)).RootElement;
        return fields.TryGetProperty("starting_adapter_sha256", out var digest) ? digest.GetString() : null;
    }

    private async Task<string> UploadAsync(ApiClient api, string name, Func<int, string> row) =>
        await api.UploadAsync(_sandbox.Write($"{name}.jsonl", string.Join('\n', Enumerable.Range(0, 4).Select(row)) + "\n"), Token);
}
