using System.Net;
using System.Text;
using System.Text.Json;
using PeftServer.Core.Http;

namespace PeftServer.Api.Tests.Errors;

public sealed class ErrorResponsesTests(ApiServer server) : IClassFixture<ApiServer>
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task UnknownPath_Returns404WithTheFourKeys()
    {
        var (status, body) = await server.GetAsync("/v1/fine-tunes");

        status.ShouldBe(HttpStatusCode.NotFound);
        var error = body.GetProperty("error");
        error.EnumerateObject().Select(member => member.Name).ShouldBe(["message", "type", "param", "code"]);
        error.GetProperty("message").GetString()!.ShouldStartWith("Unknown request URL: GET /v1/fine-tunes.");
        error.GetProperty("param").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    [Fact]
    public async Task WrongVerb_Returns405NamingTheRightOnes()
    {
        using var response = await server.Client.PutAsync("/v1/files", null, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.MethodNotAllowed);
        var error = (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error");
        error.GetProperty("message").GetString()!.ShouldContain("GET, POST");
    }

    [Fact]
    public async Task WrongContentType_Returns415()
    {
        using var content = new StringContent("model=x", Encoding.UTF8, "text/plain");

        using var response = await server.Client.PostAsync("/v1/fine_tuning/jobs", content, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.UnsupportedMediaType);
    }

    [Fact]
    public async Task LostBlob_Returns500WithTheRequestIdAndNoInternals()
    {
        var id = await server.UploadChatsAsync();
        foreach (var blob in Directory.EnumerateFiles(Path.Combine(server.Database.Folder, "artifacts", "blobs"), "*", SearchOption.AllDirectories))
        {
            File.Delete(blob);
        }

        using var response = await server.Client.GetAsync($"/v1/files/{id}/content", Token);

        response.StatusCode.ShouldBe(HttpStatusCode.InternalServerError);
        var message = (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error").GetProperty("message").GetString()!;
        message.ShouldContain(response.Headers.GetValues("x-request-id").Single());
        message.ShouldNotContain(server.Database.Folder);
    }

    [Fact]
    public async Task EveryAnswer_CarriesOpenAIsHeaders()
    {
        using var response = await server.Client.GetAsync("/v1/models", Token);

        response.Headers.GetValues("x-request-id").Single().ShouldStartWith("req_");
        response.Headers.GetValues("openai-version").Single().ShouldBe("2020-10-01");
        int.Parse(response.Headers.GetValues("openai-processing-ms").Single(), System.Globalization.CultureInfo.InvariantCulture).ShouldBeGreaterThanOrEqualTo(0);
        response.Headers.Server.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("lora_aplha", "lora_alpha")]
    [InlineData("LORA_ALPHA", "lora_alpha")]
    [InlineData("rnak_pattern", "rank_pattern")]
    [InlineData("temperature", null)]
    [InlineData("", null)]
    public void NearestName_OfAName_IsWhatWasMeant(string name, string? expected) =>
        NearestName.Of(name, ["lora_alpha", "lora_dropout", "rank_pattern", "bias"]).ShouldBe(expected);
}
