using System.Text.Json;

namespace PeftServer.Inference.Tests.Completions;

/// <summary><c>use_beam_search</c> on the real host.</summary>
public sealed class BeamSearchTests(RunningHost host) : IClassFixture<RunningHost>
{
    private const string Path = "/v1/completions";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Complete_OneBeam_IsGreedy()
    {
        const string Request = """{"model": "tiny-llama", "prompt": ["The whale", "Call me"], "max_tokens": 9""";

        Texts(await host.AskAsync(Path, Request + """, "use_beam_search": true}""")).ShouldBe(Texts(await host.AskAsync(Path, Request + """, "temperature": 0}""")));
    }

    /// <summary>Log-probabilities of what was found, as <c>echo</c> tells them: they fall from the best on, and the best is better than the greedy one.</summary>
    [Fact]
    public async Task Complete_Beams_GivesTheLikeliestFirst()
    {
        const string Prompt = "The whale";
        const string Request = $$"""{"model": "tiny-llama", "prompt": "{{Prompt}}", "max_tokens": 6, "ignore_eos": true""";

        var body = await host.AskAsync(Path, Request + """, "n": 3, "best_of": 8, "use_beam_search": true}""");

        var found = Texts(body);
        found.Distinct().Count().ShouldBe(3);
        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(18);
        var scores = new List<double>();
        foreach (var text in found.Append(Texts(await host.AskAsync(Path, Request + """, "temperature": 0}"""))[0]))
        {
            scores.Add(await ScoreAsync(Prompt, text));
        }

        scores.Take(3).ShouldBe(scores.Take(3).OrderDescending());
        scores[0].ShouldBeGreaterThanOrEqualTo(scores[3]);
    }

    [Fact]
    public async Task Complete_BeamsStreamed_GivesTheSame()
    {
        const string Request = """{"model": "bart-forced", "prompt": "where is it", "max_tokens": 6, "n": 2, "best_of": 4, "use_beam_search": true, "length_penalty": 2, "early_stopping": true""";
        var whole = Texts(await host.AskAsync(Path, Request + "}"));

        using var streamed = await host.PostAsync(Path, Request + """, "stream": true}""");

        var lines = (await streamed.Content.ReadAsStringAsync(Now)).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
        var chunks = lines[..^1].Select(line => JsonDocument.Parse(line["data: ".Length..]).RootElement.GetProperty("choices")[0]).ToList();
        Enumerable.Range(0, 2).Select(index => string.Concat(chunks.Where(choice => choice.GetProperty("index").GetInt32() == index).Select(choice => choice.GetProperty("text").GetString())))
            .ShouldBe(whole);
        whole.ShouldAllBe(text => text.StartsWith("today", StringComparison.Ordinal)); // what BART must begin with
    }

    [Fact]
    public async Task Chat_Beams_Answers()
    {
        var body = await host.AskAsync("/v1/chat/completions", """{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "n": 2, "use_beam_search": true}""");

        body.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("message").GetProperty("content").GetString()).Distinct().Count().ShouldBe(2);
    }

    private async Task<double> ScoreAsync(string prompt, string text)
    {
        var context = await host.AskAsync("/v1/tokenize", JsonSerializer.Serialize(new { model = "tiny-llama", prompt }));
        var echoed = await host.AskAsync(Path, JsonSerializer.Serialize(new { model = "tiny-llama", prompt = prompt + text, max_tokens = 0, echo = true, logprobs = 0 }));
        return echoed.GetProperty("choices")[0].GetProperty("logprobs").GetProperty("token_logprobs").EnumerateArray().Skip(context.GetProperty("count").GetInt32()).Sum(value => value.GetDouble());
    }

    private static List<string> Texts(JsonElement body) => [.. body.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("text").GetString()!)];
}
