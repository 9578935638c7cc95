using System.Text.Json;

namespace PeftServer.Inference.Tests.Completions;

/// <summary><c>POST /v1/completions</c>, and chats where there is no template, on the real host.</summary>
public sealed class CompletionEndpointsTests(RunningHost host) : IClassFixture<RunningHost>
{
    private const string Path = "/v1/completions";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("t5")]
    [InlineData("bart")]
    public async Task Complete_EncoderDecoder_ReadsThePromptAndWritesAnAnswerOfItsOwn(string model)
    {
        var body = await host.AskAsync(Path, $$"""{"model": "{{model}}", "prompt": "where is it", "temperature": 0, "max_tokens": 6, "logit_bias": {"1": -100 }, "logprobs": 2}""");

        body.GetProperty("object").GetString().ShouldBe("text_completion");
        body.GetProperty("id").GetString().ShouldStartWith("cmpl-");
        var choice = body.GetProperty("choices")[0];
        choice.GetProperty("finish_reason").GetString().ShouldBe("length");
        choice.GetProperty("text").GetString()!.Split(' ', StringSplitOptions.RemoveEmptyEntries).Length.ShouldBeInRange(1, 6);
        var logprobs = choice.GetProperty("logprobs");
        logprobs.GetProperty("tokens").GetArrayLength().ShouldBe(6);
        logprobs.GetProperty("text_offset")[0].GetInt32().ShouldBe(0);
        for (var i = 0; i < 6; i++)
        {
            var rivals = logprobs.GetProperty("top_logprobs")[i];
            rivals.EnumerateObject().Count().ShouldBe(2);
            logprobs.GetProperty("token_logprobs")[i].GetSingle().ShouldBe(rivals.EnumerateObject().Max(rival => rival.Value.GetSingle()));
        }

        body.GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBe(5); // three words and what stands around them
        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(6);
    }

    [Fact]
    public async Task Complete_SeveralPromptsAndChoices_AnswersEachAsByItself()
    {
        const string Rest = """ "temperature": 1, "seed": 5, "max_tokens": 8""";
        var together = await host.AskAsync(Path, $$"""{"model": "t5", "prompt": ["where is it", "it is in rome today"], "n": 2, {{Rest}}}""");
        var first = await host.AskAsync(Path, $$"""{"model": "t5", "prompt": "where is it", "n": 2, {{Rest}}}""");
        var second = await host.AskAsync(Path, $$"""{"model": "t5", "prompt": [2, 6, 5, 7, 8, 9, 1], "n": 2, {{Rest}}}""");

        var texts = Texts(together);
        texts.ShouldBe([.. Texts(first), .. Texts(second)]);
        texts.Distinct().Count().ShouldBe(4);
        together.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("index").GetInt32()).ShouldBe([0, 1, 2, 3]);
        together.GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBe(5 + 7);
    }

    [Fact]
    public async Task Complete_Streamed_GivesTheSameTextInPieces()
    {
        const string Request = """{"model": "t5", "prompt": "it is in rome", "temperature": 1, "seed": 3, "max_tokens": 9""";
        var expected = Texts(await host.AskAsync(Path, Request + "}"))[0];

        using var streamed = await host.PostAsync(Path, Request + """, "stream": true, "stream_options": {"include_usage": true}}""");

        var lines = (await streamed.Content.ReadAsStringAsync(Now)).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
        lines[^1].ShouldBe("data: [DONE]");
        var chunks = lines[..^1].Select(line => JsonDocument.Parse(line["data: ".Length..]).RootElement).ToList();
        chunks.Count.ShouldBeGreaterThan(3);
        string.Concat(chunks.SelectMany(Texts)).ShouldBe(expected);
        chunks[^2].GetProperty("choices")[0].GetProperty("finish_reason").GetString().ShouldBeOneOf("stop", "length");
        chunks[^1].GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task Complete_StopString_EndsTheAnswerBeforeIt()
    {
        const string Request = """{"model": "t5", "prompt": "it is in rome", "temperature": 1, "seed": 3, "max_tokens": 9""";
        var whole = Texts(await host.AskAsync(Path, Request + "}"))[0];
        var word = whole.Split(' ')[2];

        var body = await host.AskAsync(Path, Request + $$""", "stop": "{{word}}"}""");

        Texts(body)[0].ShouldBe(whole[..whole.IndexOf(word, StringComparison.Ordinal)]);
        body.GetProperty("choices")[0].GetProperty("finish_reason").GetString().ShouldBe("stop");
    }

    [Fact]
    public async Task Complete_ForcedTokens_StandFirstAndInTheLastPlace()
    {
        const string Request = """{"model": "MODEL", "prompt": "where is it", "temperature": 0, "max_tokens": 5, "logprobs": 1}""";
        var forced = (await host.AskAsync(Path, Request.Replace("MODEL", "bart-forced", StringComparison.Ordinal))).GetProperty("choices")[0];
        var free = (await host.AskAsync(Path, Request.Replace("MODEL", "bart", StringComparison.Ordinal))).GetProperty("choices")[0];

        var tokens = forced.GetProperty("logprobs").GetProperty("tokens");
        tokens[0].GetString()!.Trim().ShouldBe("today"); // 9
        forced.GetProperty("logprobs").GetProperty("token_logprobs")[0].GetSingle().ShouldBe(0);
        tokens.GetArrayLength().ShouldBe(4); // the fifth ended the text
        forced.GetProperty("finish_reason").GetString().ShouldBe("length");
        free.GetProperty("logprobs").GetProperty("tokens")[0].GetString()!.Trim().ShouldNotBe("today");
    }

    [Fact]
    public async Task Complete_Suffix_AsksForWhatStandsBetween()
    {
        const string Rest = """ "temperature": 0, "max_tokens": 5""";
        var between = await host.AskAsync(Path, $$"""{"model": "llama-fim", "prompt": "where is", "suffix": "in rome", {{Rest}}}""");

        var spelt = await host.AskAsync(Path, $$"""{"model": "llama-fim", "prompt": [2, 93, 4, 5, 94, 7, 8, 95, 1], {{Rest}}}""");

        between.GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBe(9);
        Texts(between).ShouldBe(Texts(spelt));
        (await host.RefusedAsync(Path, """{"model": "llama-fim", "prompt": [4, 5], "suffix": "in rome"}""")).GetProperty("param").GetString().ShouldBe("prompt");
    }

    [Fact]
    public async Task Complete_Decoder_ContinuesThePrompt()
    {
        var body = await host.AskAsync(Path, """{"model": "tiny-llama", "prompt": "The whale", "temperature": 0}""");

        Texts(body)[0].ShouldNotBeNullOrEmpty();
        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(16); // OpenAI's default
    }

    [Fact]
    public async Task Chat_EncoderDecoderWithoutTemplate_ReadsTheOnlyMessage()
    {
        const string Rest = """ "temperature": 0, "max_tokens": 6, "logit_bias": {"1": -100}""";
        var completion = await host.AskAsync(Path, $$"""{"model": "t5", "prompt": "where is it", {{Rest}}}""");

        var chat = await host.AskAsync("/v1/chat/completions", $$"""{"model": "t5", "messages": [{"role": "user", "content": [{"type": "text", "text": "where is it"}]}], {{Rest}}}""");

        chat.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString().ShouldBe(Texts(completion)[0]);
    }

    [Theory]
    [InlineData("t5", """[{"role": "system", "content": "Translate."}, {"role": "user", "content": "it"}]""", "exactly one message")]
    [InlineData("llama", """[{"role": "user", "content": "it"}]""", "chat_template.jinja")]
    public async Task Chat_WithoutTemplate_NamesTheRemedy(string model, string messages, string remedy)
    {
        var error = await host.RefusedAsync("/v1/chat/completions", $$"""{"model": "{{model}}", "messages": {{messages}}}""");

        error.GetProperty("code").GetString().ShouldBe("no_chat_template");
        error.GetProperty("param").GetString().ShouldBe("messages");
        error.GetProperty("message").GetString()!.ShouldContain(remedy);
        error.GetProperty("message").GetString()!.ShouldContain("/v1/completions");
    }

    [Theory]
    [InlineData("""{"model": "t5"}""", "prompt", "missing_required_parameter")]
    [InlineData("""{"model": "t5", "prompt": 7}""", "prompt", "invalid_type")]
    [InlineData("""{"model": "t5", "prompt": []}""", "prompt", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": [["it"]]}""", "prompt[0]", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": [4, 96]}""", "prompt", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "logprobs": 21}""", "logprobs", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "temperature": 3}""", "temperature", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "echo": true}""", "echo", "unsupported_parameter")]
    [InlineData("""{"model": "t5", "prompt": "it", "suffix": "x"}""", "suffix", "unsupported_parameter")]
    [InlineData("""{"model": "t5", "prompt": "it", "prompt_logprobs": 1}""", "prompt_logprobs", "unsupported_parameter")]
    [InlineData("""{"model": "t5", "prompt": "it", "n": 3, "best_of": 2}""", "best_of", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "best_of": 2, "stream": true}""", "best_of", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "max_tokens": 0}""", "max_tokens", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "use_beam_search": true, "temperature": 0.5}""", "temperature", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "use_beam_search": true, "logprobs": 0}""", "logprobs", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "use_beam_search": true, "early_stopping": "soon"}""", "early_stopping", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "length_penalty": 2}""", "length_penalty", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "stop_token_ids": [96]}""", "stop_token_ids", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "min_tokens": 17}""", "min_tokens", "invalid_value")]
    [InlineData("""{"model": "llama", "prompt": "it", "prompt_logprobs": 1, "stream": true}""", "prompt_logprobs", "invalid_value")]
    [InlineData("""{"model": "llama", "prompt": "it", "echo": true, "suffix": "a"}""", "echo", "invalid_value")]
    [InlineData("""{"model": "llama", "prompt": "it", "suffix": "a"}""", "suffix", "unsupported_parameter")]
    [InlineData("""{"model": "t5", "prompt": ["it", "is", "in", "a", "rome"], "n": 128}""", "prompt", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "task_id": 1}""", "task_id", "invalid_value")]
    [InlineData("""{"model": "t5", "prompt": "it", "max_completion_tokens": 3}""", "max_completion_tokens", "unknown_parameter")]
    [InlineData("""{"model": "bert_cls", "prompt": "it"}""", "model", "unsupported_model")]
    public async Task Complete_BadRequest_NamesTheField(string request, string field, string code)
    {
        var error = await host.RefusedAsync(Path, request);

        error.GetProperty("param").GetString().ShouldBe(field, error.ToString());
        error.GetProperty("code").GetString().ShouldBe(code);
    }

    [Fact]
    public async Task Complete_PromptLongerThanTheEncoderTakes_SaysHowLong()
    {
        var error = await host.RefusedAsync(Path, $$"""{"model": "bart", "prompt": "{{string.Concat(Enumerable.Repeat("rome ", 63))}}"}""");

        error.GetProperty("code").GetString().ShouldBe("context_length_exceeded");
        error.GetProperty("message").GetString()!.ShouldContain("takes 64 tokens, but 'prompt' has 65");

        // What the encoder reads leaves the decoder's room as it is.
        var full = await host.AskAsync(Path, $$$"""{"model": "bart", "prompt": "{{{string.Concat(Enumerable.Repeat("rome ", 62))}}}", "max_tokens": 500, "logit_bias": {"1": -100}}""");
        full.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(63);
    }

    private static List<string> Texts(JsonElement body) => [.. body.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("text").GetString()!)];
}
