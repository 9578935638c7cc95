using System.Text.Json;

namespace PeftServer.Inference.Tests.Completions;

/// <summary>How text is drawn and where it ends: OpenAI's fields and vLLM's.</summary>
public sealed class SamplingTests(RunningHost host) : IClassFixture<RunningHost>
{
    private const string Path = "/v1/completions";

    [Fact]
    public async Task Complete_BestOf_GivesTheLikeliestByToken()
    {
        const string Request = """{"model": "tiny-llama", "prompt": ["The whale", "Call me"], "temperature": 1, "seed": 4, "max_tokens": 6""";
        var all = await host.AskAsync(Path, Request + """, "n": 5, "logprobs": 0}""");

        var best = await host.AskAsync(Path, Request + """, "n": 2, "best_of": 5}""");

        var expected = all.GetProperty("choices").EnumerateArray().Chunk(5).SelectMany(choices => choices.OrderByDescending(Mean).Take(2)).Select(Text).ToList();
        best.GetProperty("choices").EnumerateArray().Select(Text).ShouldBe(expected);
        best.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("index").GetInt32()).ShouldBe([0, 1, 2, 3]);
        best.GetProperty("choices")[0].GetProperty("logprobs").ValueKind.ShouldBe(JsonValueKind.Null);
        best.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(all.GetProperty("usage").GetProperty("completion_tokens").GetInt32());
    }

    [Fact]
    public async Task Complete_MinPOfOne_DrawsTheLikeliest()
    {
        var greedy = await TextAsync(""" "temperature": 0 """);

        (await TextAsync(""" "temperature": 2, "seed": 1, "min_p": 1 """)).ShouldBe(greedy);
        (await TextAsync(""" "temperature": 2, "seed": 1 """)).ShouldNotBe(greedy);
    }

    [Fact]
    public async Task Complete_RepetitionPenalty_KeepsPromptAndAnswerFromComingAgain()
    {
        var prompt = await TokensAsync("the the the the of of");

        var answer = (await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": [{{string.Join(',', prompt)}}], "temperature": 0, "max_tokens": 24, "repetition_penalty": 100}"""))
            .GetProperty("choices")[0].GetProperty("text").GetString()!;

        var written = await TokensAsync(answer);
        written.Distinct().Count().ShouldBe(written.Count);
        written.Intersect(prompt).ShouldBeEmpty();
        var without = await TokensAsync(await TextAsync(""" "temperature": 0, "max_tokens": 60 """));
        without.Distinct().Count().ShouldBeLessThan(without.Count);
    }

    [Fact]
    public async Task Complete_StopTokenIds_EndTheAnswer_UnlessMinTokensSaysNo()
    {
        var whole = await host.AskAsync(Path, """{"model": "tiny-llama", "prompt": "The whale", "temperature": 0, "max_tokens": 8, "logprobs": 0}""");
        var tokens = whole.GetProperty("choices")[0].GetProperty("logprobs").GetProperty("tokens").EnumerateArray().Select(token => token.GetString()!).ToList();
        var third = (await TokensAsync("The whale" + string.Concat(tokens.Take(3))))[^1];
        var before = tokens.IndexOf(tokens[2]); // it may have come earlier

        var stopped = (await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": "The whale", "temperature": 0, "max_tokens": 8, "stop_token_ids": [{{third}}]}""")).GetProperty("choices")[0];
        var longer = await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": "The whale", "temperature": 0, "max_tokens": 8, "min_tokens": 8, "stop_token_ids": [{{third}}]}""");

        Text(stopped).ShouldBe(string.Concat(tokens.Take(before)));
        stopped.GetProperty("finish_reason").GetString().ShouldBe("stop");
        longer.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(8);
    }

    [Fact]
    public async Task Complete_IgnoreEos_GoesOnToTheLastToken()
    {
        const string Request = """{"model": "t5", "prompt": "where is it", "temperature": 0, "max_tokens": 9, "logit_bias": {"1": 100}""";

        (await host.AskAsync(Path, Request + "}")).GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(1);

        var body = await host.AskAsync(Path, Request + """, "ignore_eos": true, "skip_special_tokens": false}""");
        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(9);
        Text(body.GetProperty("choices")[0]).ShouldBe(string.Join(' ', Enumerable.Repeat("[SEP]", 9)));
    }

    [Fact]
    public async Task Complete_IncludeStopStr_ShowsWhatEndedTheAnswer()
    {
        var whole = await TextAsync(""" "temperature": 0, "max_tokens": 30 """);
        var stop = whole.Substring(7, 5); // wherever tokens begin and end
        var end = whole.IndexOf(stop, StringComparison.Ordinal);

        (await TextAsync($$""" "temperature": 0, "max_tokens": 30, "stop": ["{{stop}}"] """)).ShouldBe(whole[..end]);
        (await TextAsync($$""" "temperature": 0, "max_tokens": 30, "stop": ["{{stop}}"], "include_stop_str_in_output": true """)).ShouldBe(whole[..(end + stop.Length)]);
    }

    [Fact]
    public async Task Complete_WithoutSpecialTokens_SendsTheTextAlone()
    {
        const string Request = """{"model": "t5", "prompt": "where is it", "max_tokens": 1""";

        (await host.AskAsync(Path, Request + "}")).GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBe(5);
        (await host.AskAsync(Path, Request + """, "add_special_tokens": false}""")).GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBe(3);
    }

    private async Task<string> TextAsync(string rest) =>
        Text((await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": "The whale", {{rest}}}""")).GetProperty("choices")[0]);

    private async Task<List<int>> TokensAsync(string text) => [.. (await host.AskAsync("/v1/tokenize", $$"""{"model": "tiny-llama", "add_special_tokens": false, "prompt": {{JsonSerializer.Serialize(text)}}}"""))
        .GetProperty("tokens").EnumerateArray().Select(token => token.GetInt32())];

    private static string Text(JsonElement choice) => choice.GetProperty("text").GetString()!;

    private static double Mean(JsonElement choice) => choice.GetProperty("logprobs").GetProperty("token_logprobs").EnumerateArray().Average(value => value.GetDouble());
}
