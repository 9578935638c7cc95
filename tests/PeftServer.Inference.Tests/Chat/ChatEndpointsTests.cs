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
    public async Task Complete_BadRequest_NamesTheField(string request, int status, string field, string code)
    {
        var error = await host.RefusedAsync(Path, request, status);

        error.GetProperty("param").GetString().ShouldBe(field);
        error.GetProperty("code").GetString().ShouldBe(code);
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
