using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Cli.Client;

namespace PeftServer.EndToEnd.Tests;

/// <summary>
/// What is not a chat model, from rows to answers, with real processes: encoder-decoders and models that read learn a few rows by heart and
/// are asked for them, several adapters of a base at once.
/// </summary>
public sealed class ServingTests : IDisposable
{
    private readonly Sandbox _sandbox = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _sandbox.Dispose();

    [Fact]
    public async Task EncoderDecoder_TrainedOnPairs_WritesWhatItLearnt()
    {
        await using var up = await UpAsync("t5", "bart");
        using var api = new ApiClient(up.Address("api"), apiKey: null);
        using var http = new HttpClient { BaseAddress = up.Address("api") };
        string[] asked = ["where is it", "it is a"];
        var first = Pairs((asked[0], "in rome today"), (asked[1], "a"));
        var second = Pairs((asked[0], "today"), (asked[1], "is it in rome"));
        var t5 = await StartAsync(api, "seq2seq", "t5", first);
        var other = await StartAsync(api, "seq2seq", "t5", second);
        var bart = await StartAsync(api, "seq2seq", "bart", first);

        var prompted = new[] { await StartAsync(api, "seq2seq", "t5", first, "PREFIX_TUNING"), await StartAsync(api, "seq2seq", "bart", first, "PROMPT_TUNING") };

        // Two adapters and the base at once, several prompts each.
        var models = new[] { await ModelOfAsync(api, t5), await ModelOfAsync(api, other), await ModelOfAsync(api, bart), "t5" };
        var answers = await Task.WhenAll(models.Select(model => AskAsync(http, "/v1/completions", new JsonObject
        {
            ["model"] = model,
            ["prompt"] = new JsonArray(asked[0], asked[1]),
            ["temperature"] = 0,
            ["max_tokens"] = 8,
        })));

        Texts(answers[0]).ShouldBe(["in rome today", "a"]);
        Texts(answers[1]).ShouldBe(["today", "is it in rome"]);
        Texts(answers[2]).ShouldBe(["in rome today", "a"]);
        Texts(answers[3]).ShouldNotBe(Texts(answers[0]));
        answers[0].GetProperty("choices").EnumerateArray().ShouldAllBe(choice => choice.GetProperty("finish_reason").GetString() == "stop");
        // Prompts of an encoder-decoder, from the job to the answer.
        foreach (var job in prompted)
        {
            (await AskAsync(http, "/v1/completions", new JsonObject { ["model"] = await ModelOfAsync(api, job), ["prompt"] = asked[0], ["max_tokens"] = 4 }))
                .GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBe(5);
        }

        (await api.ChatAsync(models[1], JsonNode.Parse("""[{"role": "user", "content": "where is it"}]""")!, 8, Token)).ShouldBe("today");
    }

    [Fact]
    public async Task Readers_TrainedOnRows_TellWhatTheyLearnt()
    {
        await using var up = await UpAsync("bert");
        using var api = new ApiClient(up.Address("api"), apiKey: null);
        using var http = new HttpClient { BaseAddress = up.Address("api") };
        string[] texts = ["it is in rome", "it is today"];
        var places = await StartAsync(api, "classification", "bert", Labelled((texts[0], "place"), (texts[1], "time")));
        var three = await StartAsync(api, "classification", "bert", Labelled((texts[0], "two"), (texts[1], "one"), ("where is it", "three")));
        var causal = await StartAsync(api, "classification", "tiny-llama", Labelled((texts[0], "place"), (texts[1], "time")));
        var reward = await StartAsync(api, "reward", "tiny-llama", ["""{"prompt": "How are you? ", "chosen": "very well", "rejected": "badly"}"""]);
        var tags = await StartAsync(api, "token_classification", "bert", ["""{"tokens": ["it", "is", "in", "rome", "today"], "ner_tags": ["O", "O", "O", "B-LOC", "B-TIME"]}"""]);
        var question = await StartAsync(api, "question_answering", "bert", ["""{"question": "where is it", "context": "it is in rome today", "answers": {"text": ["in rome"], "answer_start": [6]}}"""]);
        var vectors = await StartAsync(api, "embedding", "bert", ["""{"anchor": "where is it", "positive": "in rome"}""", """{"anchor": "is it a", "positive": "today"}"""]);

        var classifiers = new[] { await ModelOfAsync(api, places), await ModelOfAsync(api, three), await ModelOfAsync(api, causal) };
        var answers = await Task.WhenAll(classifiers.Concat(classifiers).Select((model, i) => AskAsync(
            http, i % 2 == 0 ? "/v1/classify" : "/classify", new JsonObject { ["model"] = model, ["input"] = new JsonArray(texts[0], texts[1]) })));
        string[][] expected = [["place", "time"], ["two", "one"], ["place", "time"]];
        for (var i = 0; i < answers.Length; i++)
        {
            answers[i].GetProperty("data").EnumerateArray().Select(item => item.GetProperty("label").GetString()).ShouldBe(expected[i % 3], $"{i}: {answers[i]}");
            answers[i].GetProperty("data").EnumerateArray().ShouldAllBe(item => item.GetProperty("num_classes").GetInt32() == (i % 3 == 1 ? 3 : 2));
        }

        var judge = await ModelOfAsync(api, reward);
        var scores = await AskAsync(http, "/v1/classify", new JsonObject { ["model"] = judge, ["input"] = new JsonArray("How are you? very well", "How are you? badly") });
        scores.GetProperty("data")[0].GetProperty("score").GetDouble().ShouldBeGreaterThan(scores.GetProperty("data")[1].GetProperty("score").GetDouble());
        scores.GetProperty("data")[0].GetProperty("probs")[0].GetDouble().ShouldBeInRange(0, 1);
        var chat = await AskAsync(http, "/v1/classify", JsonNode.Parse($$"""{"model": "{{judge}}", "messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "well"}]}""")!.AsObject());
        chat.GetProperty("data")[0].TryGetProperty("score", out _).ShouldBeTrue();

        var tagger = await ModelOfAsync(api, tags);
        var entities = (await AskAsync(http, "/v1/token_classification", new JsonObject { ["model"] = tagger, ["input"] = "It is in Rome today" })).GetProperty("data")[0].GetProperty("entities");
        entities.EnumerateArray().Select(entity => (entity.GetProperty("entity_group").GetString(), entity.GetProperty("word").GetString(), entity.GetProperty("start").GetInt32()))
            .ShouldBe([("LOC", "Rome", 9), ("TIME", "today", 14)]);

        var reader = await ModelOfAsync(api, question);
        var found = (await AskAsync(http, "/v1/question_answering", JsonNode.Parse($$"""{"model": "{{reader}}", "question": "where is it", "context": "it is in rome today"}""")!.AsObject())).GetProperty("data")[0];
        found.GetProperty("answer").GetString().ShouldBe("in rome");
        found.GetProperty("start").GetInt32().ShouldBe(6);

        var embedder = await ModelOfAsync(api, vectors);
        (await AskAsync(http, "/v1/embeddings", new JsonObject { ["model"] = embedder, ["input"] = "in rome" })).GetProperty("data")[0].GetProperty("embedding").GetArrayLength().ShouldBe(32);

        var listed = (await http.GetFromJsonAsync<JsonElement>("/v1/models", Token)).GetProperty("data").EnumerateArray().ToDictionary(model => model.GetProperty("id").GetString()!);
        Tasks(classifiers[2], "tiny-llama", judge, tagger, reader, embedder, "bert")
            .ShouldBe(["text-classification", "text-generation", "text-classification", "token-classification", "question-answering", "feature-extraction", "feature-extraction"]);
        listed[tagger].GetProperty("endpoints")[0].GetString().ShouldBe("/v1/token_classification");
        using var wrong = await http.PostAsJsonAsync("/v1/chat/completions", new { model = judge, messages = new[] { new { role = "user", content = "Hi" } } }, Token);
        ((int)wrong.StatusCode).ShouldBe(400);
        (await wrong.Content.ReadAsStringAsync(Token)).ShouldContain("Use POST /v1/classify.");

        IEnumerable<string?> Tasks(params string[] names) => names.Select(name => listed[name].GetProperty("task").GetString());
    }

    private Task<PeftServerProgram> UpAsync(params string[] models) => PeftServerProgram.UpAsync(
        _sandbox, "--set", "Worker:Devices=cpu", "--set", "Inference:Device=cpu", "--set", $"Models:Root={WordModels.Create(_sandbox, models)}");

    /// <summary>Starts a job that learns its rows by heart.</summary>
    private async Task<string> StartAsync(ApiClient api, string method, string model, string[] rows, string? prompts = null)
    {
        var file = await api.UploadAsync(_sandbox.Write($"{Guid.NewGuid():N}.jsonl", string.Join('\n', rows)), Token);
        return await api.CreateJobAsync(new JsonObject
        {
            ["model"] = model,
            ["training_file"] = file,
            ["method"] = new JsonObject { ["type"] = method },
            ["peft"] = prompts is not null ? new JsonObject { ["peft_type"] = prompts, ["num_virtual_tokens"] = 4 } : new JsonObject { ["peft_type"] = "LORA", ["r"] = 16, ["lora_alpha"] = 32, ["target_modules"] = "all-linear" },
            ["training"] = new JsonObject { ["max_steps"] = prompts is not null ? 2 : model == "tiny-llama" ? 15 : 120, ["per_device_train_batch_size"] = rows.Length, ["learning_rate"] = model == "tiny-llama" ? 0.002 : 0.01 },
        }, Token);
    }

    private static async Task<string> ModelOfAsync(ApiClient api, string job)
    {
        while (true)
        {
            var state = await api.GetJobAsync(job, Token);
            switch (state.GetProperty("status").GetString())
            {
                case "succeeded":
                    return state.GetProperty("fine_tuned_model").GetString()!;
                case "failed" or "cancelled":
                    throw new InvalidOperationException(state.ToString());
            }

            await Task.Delay(100, Token);
        }
    }

    private static async Task<JsonElement> AskAsync(HttpClient http, string path, JsonObject request)
    {
        using var response = await http.PostAsJsonAsync(path, request, Token);
        var body = await response.Content.ReadFromJsonAsync<JsonElement>(Token);
        ((int)response.StatusCode).ShouldBe(200, $"{request.ToJsonString()}: {body}");
        return body;
    }

    private static string[] Pairs(params (string Source, string Target)[] pairs) =>
        [.. pairs.Select(pair => new JsonObject { ["source"] = pair.Source, ["target"] = pair.Target }.ToJsonString())];

    private static string[] Labelled(params (string Text, string Label)[] rows) => [.. rows.Select(row => new JsonObject { ["text"] = row.Text, ["label"] = row.Label }.ToJsonString())];

    private static IEnumerable<string> Texts(JsonElement completion) => completion.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("text").GetString()!.Trim());
}
