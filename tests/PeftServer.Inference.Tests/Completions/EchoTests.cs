using System.Text.Json;

namespace PeftServer.Inference.Tests.Completions;

/// <summary>Prompts that come back: <c>echo</c>, as evaluation harnesses use it, and vLLM's <c>prompt_logprobs</c>.</summary>
public sealed class EchoTests(RunningHost host) : IClassFixture<RunningHost>
{
    private const string Path = "/v1/completions";
    private const string Prompt = "The whale, the whale! Grüße — 🐋.";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Complete_EchoWithLogprobs_TellsEveryTokenOfPromptAndAnswer()
    {
        var plain = Choice(await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": "{{Prompt}}", "temperature": 0, "max_tokens": 4, "logprobs": 2}"""));

        var body = await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": "{{Prompt}}", "temperature": 0, "max_tokens": 4, "logprobs": 2, "echo": true}""");

        var choice = Choice(body);
        choice.GetProperty("text").GetString().ShouldBe(Prompt + plain.GetProperty("text").GetString());
        var (tokens, values, tops, offsets) = Lists(choice);
        var prompt = body.GetProperty("usage").GetProperty("prompt_tokens").GetInt32();
        (tokens.Count, values.Count, tops.Count, offsets.Count).ShouldBe((prompt + 4, prompt + 4, prompt + 4, prompt + 4));
        values[0].ShouldBeNull();
        tops[0].ValueKind.ShouldBe(JsonValueKind.Null);
        values.Skip(1).ShouldAllBe(value => value < 0);
        values.Skip(prompt).ShouldBe(Lists(plain).Values);
        offsets.ShouldBe(offsets.Order());
        var runes = choice.GetProperty("text").GetString()!.EnumerateRunes().Select(rune => rune.ToString()).ToList();
        for (var i = 1; i < tokens.Count; i++)
        {
            tops[i].EnumerateObject().Count().ShouldBeInRange(1, 3);
            tops[i].EnumerateObject().ShouldContain(top => top.Name == tokens[i] && top.Value.GetSingle() == values[i]!.Value);
            if (!tokens[i].Contains('�', StringComparison.Ordinal) && tokens[i].Length > 0)
            {
                string.Concat(runes.Skip(offsets[i])).ShouldStartWith(tokens[i], Case.Sensitive, $"token {i}");
            }
        }

        for (var i = prompt; i < tokens.Count; i++)
        {
            tops[i].EnumerateObject().Max(top => top.Value.GetSingle()).ShouldBe(values[i]!.Value); // greedy
        }
    }

    /// <summary>What lm-evaluation-harness sends and reads: a continuation's log-likelihood, and whether it is the greedy one.</summary>
    [Fact]
    public async Task Complete_EchoOfTokenIds_GivesAHarnessItsLogLikelihoods()
    {
        var first = await TokensAsync("The whale");
        var likely = (await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": [{{string.Join(',', first)}}], "temperature": 0, "max_tokens": 3, "logprobs": 0}"""))
            .GetProperty("choices")[0].GetProperty("logprobs");
        var greedy = await TokensAsync("The whale" + string.Concat(likely.GetProperty("tokens").EnumerateArray().Select(token => token.GetString())));
        greedy.Count.ShouldBe(first.Count + 3);
        var other = (int[])[.. first, greedy[^1], greedy[^1], greedy[^1]];

        var body = await host.AskAsync(
            Path, $$"""{"model": "tiny-llama", "prompt": [[{{string.Join(',', greedy)}}], [{{string.Join(',', other)}}]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true}""");

        var (sum, isGreedy) = LogLikelihood(body.GetProperty("choices")[0], first.Count);
        sum.ShouldBe(likely.GetProperty("token_logprobs").EnumerateArray().Sum(value => value.GetDouble()), 1e-4);
        isGreedy.ShouldBeTrue();
        var (less, isGreedyToo) = LogLikelihood(body.GetProperty("choices")[1], first.Count);
        less.ShouldBeLessThan(sum);
        isGreedyToo.ShouldBeFalse();
    }

    [Fact]
    public async Task Complete_EchoWithoutNewTokens_GivesThePromptAlone()
    {
        var body = await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": ["{{Prompt}}", "Call me"], "max_tokens": 0, "logprobs": 1, "echo": true}""");
        var longer = await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": ["{{Prompt}}", "Call me"], "max_tokens": 1, "logprobs": 1, "echo": true}""");

        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(0);
        body.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("text").GetString()).ShouldBe([Prompt, "Call me"]);
        for (var i = 0; i < 2; i++)
        {
            body.GetProperty("choices")[i].GetProperty("finish_reason").GetString().ShouldBe("length");
            Lists(body.GetProperty("choices")[i]).Values.ShouldBe(Lists(longer.GetProperty("choices")[i]).Values.SkipLast(1));
        }
    }

    [Fact]
    public async Task Complete_EchoStreamed_GivesTheSameInPieces()
    {
        const string Request = $$"""{"model": "tiny-llama", "prompt": ["{{Prompt}}", [5, 6, 7]], "temperature": 0, "max_tokens": 5, "logprobs": 1, "echo": true""";
        var whole = await host.AskAsync(Path, Request + "}");

        using var streamed = await host.PostAsync(Path, Request + """, "stream": true}""");

        var lines = (await streamed.Content.ReadAsStringAsync(Now)).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
        var chunks = lines[..^1].Select(line => JsonDocument.Parse(line["data: ".Length..]).RootElement.GetProperty("choices")[0]).ToList();
        for (var index = 0; index < 2; index++)
        {
            var pieces = chunks.Where(choice => choice.GetProperty("index").GetInt32() == index).ToList();
            string.Concat(pieces.Select(piece => piece.GetProperty("text").GetString())).ShouldBe(whole.GetProperty("choices")[index].GetProperty("text").GetString());
            var (tokens, values, _, offsets) = Lists(whole.GetProperty("choices")[index]);
            pieces.SelectMany(piece => Lists(piece).Tokens).ShouldBe(tokens);
            pieces.SelectMany(piece => Lists(piece).Values).ShouldBe(values);
            pieces.SelectMany(piece => Lists(piece).Offsets).ShouldBe(offsets);
        }
    }

    [Fact]
    public async Task Complete_EchoWithoutLogprobs_GivesTextAlone()
    {
        var choice = Choice(await host.AskAsync(Path, """{"model": "tiny-llama", "prompt": "Call me", "max_tokens": 1, "echo": true}"""));

        choice.GetProperty("text").GetString().ShouldStartWith("Call me");
        choice.GetProperty("logprobs").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    [Fact]
    public async Task Complete_PromptLogprobs_AreVllmsAndAgreeWithTheEchos()
    {
        var body = await host.AskAsync(Path, """{"model": "tiny-llama", "prompt": "Call me Ishmael", "max_tokens": 1, "prompt_logprobs": 2, "logprobs": 1, "echo": true}""");

        var choice = Choice(body);
        var told = choice.GetProperty("prompt_logprobs").EnumerateArray().ToList();
        var (tokens, values, _, _) = Lists(choice);
        told.Count.ShouldBe(body.GetProperty("usage").GetProperty("prompt_tokens").GetInt32());
        told[0].ValueKind.ShouldBe(JsonValueKind.Null);
        for (var i = 1; i < told.Count; i++)
        {
            var places = told[i].EnumerateObject().ToList();
            places.Count.ShouldBeInRange(2, 3);
            places[0].Value.GetProperty("logprob").GetSingle().ShouldBe(values[i]!.Value);
            places[0].Value.GetProperty("decoded_token").GetString().ShouldBe(tokens[i]);
            places.Select(place => place.Value.GetProperty("rank").GetInt32()).ShouldContain(1);
            places.OrderBy(place => place.Value.GetProperty("rank").GetInt32()).Select(place => place.Value.GetProperty("logprob").GetSingle())
                .ShouldBe(places.Select(place => place.Value.GetProperty("logprob").GetSingle()).OrderDescending());
        }

        Choice(await host.AskAsync(Path, """{"model": "tiny-llama", "prompt": "Call me", "max_tokens": 1}""")).TryGetProperty("prompt_logprobs", out _).ShouldBeFalse();
    }

    [Fact]
    public async Task Complete_PromptThatFillsTheModel_IsEchoedButNotContinued()
    {
        var prompt = string.Join(',', Enumerable.Repeat(5, 1024));

        Lists(Choice(await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": [{{prompt}}], "max_tokens": 0, "logprobs": 0, "echo": true}"""))).Values.Count.ShouldBe(1024);
        (await host.RefusedAsync(Path, $$"""{"model": "tiny-llama", "prompt": [{{prompt}}], "max_tokens": 1}""")).GetProperty("code").GetString().ShouldBe("context_length_exceeded");
    }

    private static JsonElement Choice(JsonElement body) => body.GetProperty("choices")[0];

    private static (List<string> Tokens, List<float?> Values, List<JsonElement> Tops, List<int> Offsets) Lists(JsonElement choice)
    {
        var logprobs = choice.GetProperty("logprobs");
        return logprobs.ValueKind is JsonValueKind.Null ? ([], [], [], []) : (
            [.. logprobs.GetProperty("tokens").EnumerateArray().Select(token => token.GetString()!)],
            [.. logprobs.GetProperty("token_logprobs").EnumerateArray().Select(value => value.ValueKind is JsonValueKind.Null ? (float?)null : value.GetSingle())],
            [.. logprobs.GetProperty("top_logprobs").EnumerateArray()],
            [.. logprobs.GetProperty("text_offset").EnumerateArray().Select(offset => offset.GetInt32())]);
    }

    private static (double Sum, bool IsGreedy) LogLikelihood(JsonElement choice, int context)
    {
        var (_, values, tops, _) = Lists(choice);
        var of = Enumerable.Range(context, values.Count - 1 - context).ToList();
        return (of.Sum(i => (double)values[i]!.Value), of.All(i => values[i]!.Value == tops[i].EnumerateObject().Max(top => top.Value.GetSingle())));
    }

    private async Task<List<int>> TokensAsync(string text) => [.. (await host.AskAsync("/v1/tokenize", $$"""{"model": "tiny-llama", "prompt": {{JsonSerializer.Serialize(text)}}}"""))
        .GetProperty("tokens").EnumerateArray().Select(token => token.GetInt32())];
}
