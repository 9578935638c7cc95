using System.Net;
using System.Net.Http.Json;
using System.Text.Json;

namespace PeftServer.Inference.Tests.Chat;

/// <summary><c>POST /v1/chat/completions</c> on the real host.</summary>
public sealed class ChatEndpointsTests(RunningHost host) : IClassFixture<RunningHost>
{
    private const string Path = "/v1/chat/completions";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Complete_WithoutTheInternalKey_Returns401()
    {
        using var stranger = new HttpClient { BaseAddress = host.Address };

        using var response = await stranger.PostAsJsonAsync(Path, new { model = "tiny-llama", messages = new[] { new { role = "user", content = "Hi" } } }, Now);

        response.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
    }

    [Fact]
    public async Task Complete_Greedy_AnswersInOpenAisShapeWithinMaxTokens()
    {
        var body = await host.AskAsync(Path, """{"model": "tiny-llama", "messages": [{"role": "user", "content": "The whale"}], "temperature": 0, "max_tokens": 5}""");

        body.GetProperty("object").GetString().ShouldBe("chat.completion");
        var choice = body.GetProperty("choices")[0];
        choice.GetProperty("message").GetProperty("role").GetString().ShouldBe("assistant");
        choice.GetProperty("message").GetProperty("content").GetString().ShouldNotBeNullOrEmpty();
        choice.GetProperty("finish_reason").GetString().ShouldBe("length");
        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(5);
    }

    [Fact]
    public async Task Complete_Streamed_GivesTheSameTextInPieces()
    {
        const string Request = """{"model": "tiny-llama", "messages": [{"role": "user", "content": "The President"}], "temperature": 1, "seed": 11, "max_tokens": 12STREAM}""";
        var whole = await host.AskAsync(Path, Request.Replace("STREAM", "", StringComparison.Ordinal));
        var expected = whole.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString();

        using var streamed = await host.PostAsync(Path, Request.Replace("STREAM", """, "stream": true, "stream_options": {"include_usage": true}""", StringComparison.Ordinal));

        var lines = (await streamed.Content.ReadAsStringAsync(Now)).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
        lines[^1].ShouldBe("data: [DONE]");
        var chunks = lines[..^1].Select(line => JsonDocument.Parse(line["data: ".Length..]).RootElement).ToList();
        var text = string.Concat(chunks.SelectMany(chunk => chunk.GetProperty("choices").EnumerateArray())
            .Select(choice => choice.GetProperty("delta").TryGetProperty("content", out var content) ? content.GetString() : ""));
        text.ShouldBe(expected);
        chunks[^1].GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(12);
    }

    [Theory]
    [InlineData("""{"model": "nobody", "messages": [{"role": "user", "content": "Hi"}]}""", 404, "model", "model_not_found")]
    [InlineData("""{"model": "tiny-llama", "messages": []}""", 400, "messages", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "temperature": 3}""", 400, "temperature", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "task_id": 1}""", 400, "task_id", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "max_tokns": 3}""", 400, "max_tokns", "unknown_parameter")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}}""", 400, "response_format", "unsupported_parameter")]
    [InlineData("""{"model": "tiny-llama", "messages": [5]}""", 400, "messages[0]", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}, {"content": "Hi"}]}""", 400, "messages[1].role", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user"}]}""", 400, "messages[0].content", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": 7}]}""", 400, "messages[0].content", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": [{"type": "text"}]}]}""", 400, "messages[0].content[0]", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}""", 400, "messages[0].content[0]", "unsupported_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "tools": "x"}""", 400, "tools", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": "function"}]}""", 400, "tools[0]", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": {"messages": []}}""", 400, "chat_template_kwargs.messages", "invalid_value")]
    [InlineData("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "continue_final_message": true}""", 400, "continue_final_message", "unsupported_parameter")]
    public async Task Complete_BadRequest_NamesTheField(string request, int status, string field, string code)
    {
        var error = await host.RefusedAsync(Path, request, status);

        error.GetProperty("param").GetString().ShouldBe(field);
        error.GetProperty("code").GetString().ShouldBe(code);
    }

    [Fact]
    public async Task Complete_WhatOtherClientsSendUnasked_IsTaken()
    {
        var body = await host.AskAsync(Path, """
            {
              "model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 2, "top_k": -1, "tools": [], "tool_choice": null, "stop": [],
              "stream": null, "response_format": {"type": "text"}, "chat_template_kwargs": {"enable_thinking": false}, "continue_final_message": false, "logit_bias": {}, "n": null
            }
            """);

        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(2);
    }

    [Fact]
    public async Task Complete_WithoutGenerationPrompt_ReadsTheMessagesAlone()
    {
        const string Request = """{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1""";
        var usual = await host.AskAsync(Path, Request + "}");

        var body = await host.AskAsync(Path, Request + """, "add_generation_prompt": false}""");

        body.GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBeLessThan(usual.GetProperty("usage").GetProperty("prompt_tokens").GetInt32());
    }

    [Theory]
    [InlineData("/v1/chat/completions/")]
    [InlineData("/V1/Chat/Completions")]
    public async Task Complete_PathWrittenDifferently_Answers(string path)
    {
        var body = await host.AskAsync(path, """{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}""");

        body.GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBe(1);
    }

    [Fact]
    public async Task Complete_ContinuousUsage_CountsWithEveryPiece()
    {
        using var streamed = await host.PostAsync(Path, """
            {"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 3, "stream": true, "stream_options": {"continuous_usage_stats": true}}
            """);

        var lines = (await streamed.Content.ReadAsStringAsync(Now)).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
        var counts = lines[..^1].Select(line => JsonDocument.Parse(line["data: ".Length..]).RootElement.GetProperty("usage").GetProperty("completion_tokens").GetInt32()).ToList();
        counts.ShouldBe(counts.Order());
        (counts[0], counts[^1]).ShouldBe((1, 3));
    }

    [Fact]
    public async Task Complete_PackedBody_Returns415()
    {
        using var packed = new ByteArrayContent([0x1f, 0x8b]);
        packed.Headers.ContentType = new("application/json");
        packed.Headers.ContentEncoding.Add("gzip");

        using var response = await host.SendAsync(Path, packed);

        response.StatusCode.ShouldBe(HttpStatusCode.UnsupportedMediaType);
        (await response.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("error").GetProperty("code").GetString().ShouldBe("unsupported_content_encoding");
    }

    [Fact]
    public async Task Complete_MessagesLongerThanTheModelTakes_SaysHowLong()
    {
        var text = string.Concat(Enumerable.Repeat("many words ", 2000));

        var error = await host.RefusedAsync(Path, $$"""{"model": "tiny-llama", "messages": [{"role": "user", "content": "{{text}}"}]}""");

        error.GetProperty("code").GetString().ShouldBe("context_length_exceeded");
        error.GetProperty("message").GetString()!.ShouldContain("1024");
    }
}
