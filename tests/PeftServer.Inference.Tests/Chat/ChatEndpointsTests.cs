using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using PeftServer.Engine.Native;
using PeftServer.Testing;

namespace PeftServer.Inference.Tests.Chat;

/// <summary>The real host with the sample model, over HTTP, on a real PostgreSQL.</summary>
public sealed class ChatEndpointsTests(TestDatabase database) : IClassFixture<TestDatabase>, IAsyncLifetime
{
    private const string Key = "internal-key-of-the-tests";
    private readonly HttpClient _client = new();
    private WebApplication _host = null!;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        TorchLoader.Load();
        await Core.Data.PeftDatabase.MigrateAsync(database.ConnectionString, Now);
        var settings = database.Settings.Append(new("Models:Root", Path.Combine(AppContext.BaseDirectory, "models")))
            .Append(new("Inference:InternalKey", Key)).Append(new("Inference:Device", "cpu")).Append(new("Inference:Url", "http://127.0.0.1:0"));
        _host = InferenceHost.Build([.. settings.Select(setting => $"--{setting.Key}={setting.Value}")]);
        await _host.StartAsync(Now);
        _client.BaseAddress = new Uri(_host.Urls.First());
        _client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Key);
    }

    public async ValueTask DisposeAsync()
    {
        _client.Dispose();
        await _host.DisposeAsync();
    }

    [Fact]
    public async Task Complete_WithoutTheInternalKey_Returns401()
    {
        _client.DefaultRequestHeaders.Authorization = null;

        using var response = await PostAsync("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "Hi"}]}""");

        response.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
    }

    [Fact]
    public async Task Complete_Greedy_AnswersInOpenAisShapeWithinMaxTokens()
    {
        using var response = await PostAsync("""{"model": "tiny-llama", "messages": [{"role": "user", "content": "The whale"}], "temperature": 0, "max_tokens": 5}""");

        var body = await response.Content.ReadFromJsonAsync<JsonElement>(Now);
        response.StatusCode.ShouldBe(HttpStatusCode.OK, body.ToString());
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
        using var whole = await PostAsync(Request.Replace("STREAM", "", StringComparison.Ordinal));
        var expected = (await whole.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString();

        using var streamed = await PostAsync(Request.Replace("STREAM", """, "stream": true, "stream_options": {"include_usage": true}""", StringComparison.Ordinal));

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
        using var response = await PostAsync(request);

        var error = (await response.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("error");
        ((int)response.StatusCode).ShouldBe(status, error.ToString());
        error.GetProperty("param").GetString().ShouldBe(field);
        error.GetProperty("code").GetString().ShouldBe(code);
    }

    [Fact]
    public async Task Complete_MessagesLongerThanTheModelTakes_SaysHowLong()
    {
        var text = string.Concat(Enumerable.Repeat("many words ", 2000));

        using var response = await PostAsync($$"""{"model": "tiny-llama", "messages": [{"role": "user", "content": "{{text}}"}]}""");

        var error = (await response.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("error");
        error.GetProperty("code").GetString().ShouldBe("context_length_exceeded");
        error.GetProperty("message").GetString()!.ShouldContain("1024");
    }

    private Task<HttpResponseMessage> PostAsync(string json) =>
        _client.PostAsync("/v1/chat/completions", new StringContent(json, Encoding.UTF8, "application/json"), Now);
}
