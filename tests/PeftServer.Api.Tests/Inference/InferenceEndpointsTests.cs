using System.Net;
using System.Text;
using System.Text.Json;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.Inference;

public sealed class InferenceEndpointsTests(TestCluster cluster)
{
    private const string Chat = "/v1/chat/completions";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("/v1/chat/completions")]
    [InlineData("/v1/completions")]
    [InlineData("/v1/embeddings")]
    [InlineData("/v1/classify")]
    [InlineData("/v1/score")]
    [InlineData("/v1/token_classification")]
    [InlineData("/v1/question_answering")]
    [InlineData("/v1/pooling")]
    [InlineData("/v1/tokenize")]
    [InlineData("/v1/detokenize")]
    [InlineData("/classify", "/v1/classify")]
    [InlineData("/score", "/v1/score")]
    [InlineData("/pooling", "/v1/pooling")]
    [InlineData("/tokenize", "/v1/tokenize")]
    [InlineData("/detokenize", "/v1/detokenize")]
    public async Task Forward_Request_ReachesTheHostByteForByteWithTheInternalKeyOnly(string path, string? hostPath = null)
    {
        const string sent = """{ "messages":[{"role":"user","content":"Grüß dich \ud83e\udd99, 1.0e5"}],   "model" : "tiny-llama", "x": 1.50 }""";
        await using var api = await ApiServer.StartAsync(cluster, ("Inference:InternalKey", "internal"), ("Auth:ApiKey", "clients"));
        await using var host = await FakeInferenceHost.StartAsync(api);
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new StringContent(sent, Encoding.UTF8, "application/json") };
        request.Headers.Add("Authorization", "Bearer clients");
        request.Headers.Add("Cookie", "secret=1");

        using var response = await api.Client.SendAsync(request, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await response.Content.ReadAsStringAsync(Token)).ShouldBe("""{"object":"chat.completion","id":"chatcmpl-1"}""");
        host.Body.ShouldBe(sent);
        host.Path.ShouldBe(hostPath ?? path);
        host.Headers["Authorization"].ShouldBe("Bearer internal");
        host.Headers.ShouldNotContainKey("Cookie");
        host.Headers["x-request-id"].ShouldBe(response.Headers.GetValues("x-request-id").Single());
    }

    [Fact]
    public async Task Forward_Stream_IsPassedOnAsItComesAndAClientThatLeavesCancels()
    {
        await using var api = await ApiServer.StartAsync(cluster);
        await using var host = await FakeInferenceHost.StartAsync(api);
        using var request = new HttpRequestMessage(HttpMethod.Post, Chat)
        {
            Content = new StringContent("""{"model": "tiny-llama", "stream": true}""", Encoding.UTF8, "application/json"),
        };
        host.Chunks.Release();

        var response = await api.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Token);
        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync(Token));
        (await ReadAsync(reader)).ShouldBe("data: 1");
        (await ReadAsync(reader)).ShouldBe("");
        host.Chunks.Release(); // the second is written only now: the first was not held back for it
        (await ReadAsync(reader)).ShouldBe("data: 2");
        response.Dispose();

        await host.ClientLeft.Task.WaitAsync(TimeSpan.FromSeconds(10), Token);
    }

    [Fact]
    public async Task Forward_NoHost_Returns503WithRetryAfter()
    {
        await using var api = await ApiServer.StartAsync(cluster);
        using var content = new StringContent("""{"model": "tiny-llama"}""", Encoding.UTF8, "application/json");

        using var response = await api.Client.PostAsync(Chat, content, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.ServiceUnavailable);
        response.Headers.RetryAfter!.Delta.ShouldNotBeNull();
        (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error").GetProperty("code").GetString().ShouldBe("no_inference_host");
    }

    [Fact]
    public async Task Forward_DeadHost_TheNextOneAnswers()
    {
        await using var api = await ApiServer.StartAsync(cluster);
        await FakeInferenceHost.RegisterAsync(api, "dead", "http://127.0.0.1:1", load: 0);
        await using var living = await FakeInferenceHost.StartAsync(api, "living", load: 9);

        var (status, _) = await api.PostAsync(Chat, """{"model": "tiny-llama"}""");

        status.ShouldBe(HttpStatusCode.OK);
        living.Body.ShouldBe("""{"model": "tiny-llama"}""");
    }

    [Theory]
    [InlineData("""{"model": "gpt-4o"}""", HttpStatusCode.NotFound, "model_not_found")]
    [InlineData("""{"model": "\u0000"}""", HttpStatusCode.BadRequest, "invalid_string")]
    [InlineData("""{"messages": []}""", HttpStatusCode.BadRequest, "missing_required_parameter")]
    [InlineData("""{"model": 5}""", HttpStatusCode.BadRequest, "invalid_type")]
    [InlineData("""{"model": "tiny-llama", "model": "other"}""", HttpStatusCode.BadRequest, "named_twice")]
    [InlineData("""{"model": "\ud800"}""", HttpStatusCode.BadRequest, "invalid_string")]
    [InlineData("""{"nested": {"model": "tiny-llama"}}""", HttpStatusCode.BadRequest, "missing_required_parameter")]
    [InlineData("""["model"]""", HttpStatusCode.BadRequest, "invalid_type")]
    [InlineData("""{"model": "tiny-llama", """, HttpStatusCode.BadRequest, "invalid_json")]
    [InlineData("", HttpStatusCode.BadRequest, "invalid_json")]
    public async Task Forward_WrongRequest_IsAnsweredHere(string json, HttpStatusCode expected, string code)
    {
        await using var api = await ApiServer.StartAsync(cluster);

        var (status, body) = await api.PostAsync(Chat, json);

        status.ShouldBe(expected);
        body.GetProperty("error").GetProperty("code").GetString().ShouldBe(code);
    }

    [Fact]
    public async Task Forward_HugeBody_Returns413()
    {
        await using var api = await ApiServer.StartAsync(cluster, ("Api:MaxRequestBytes", "2000"));

        var (status, _) = await api.PostAsync(Chat, $$"""{"model": "tiny-llama", "messages": "{{new string('x', 3000)}}"}""");

        status.ShouldBe(HttpStatusCode.RequestEntityTooLarge);
    }

    private static Task<string?> ReadAsync(StreamReader reader) => reader.ReadLineAsync(Token).AsTask().WaitAsync(TimeSpan.FromSeconds(10), Token);
}
