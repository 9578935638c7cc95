using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Routing;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.Security;

public sealed class KeyPolicyTests(KeyPolicyTests.KeyedServer keyed) : IClassFixture<KeyPolicyTests.KeyedServer>
{
    private const string Key = "a-long-random-text";

    /// <summary>What anybody may see. A new endpoint does not belong here without a reason.</summary>
    private static readonly string[] Open = ["/", "/health", "/healthz", "/readyz"];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public sealed class KeyedServer(TestCluster cluster) : IAsyncLifetime
    {
        public ApiServer Server { get; private set; } = null!;

        public async ValueTask InitializeAsync() => Server = await ApiServer.StartAsync(cluster, ("Auth:ApiKey", Key));

        public ValueTask DisposeAsync() => Server.DisposeAsync();
    }

    [Fact]
    public async Task EveryEndpoint_WithoutAKey_Returns401UnlessItIsOnTheList()
    {
        var endpoints = keyed.Server.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>().ToList();
        endpoints.Count.ShouldBeGreaterThan(15);

        foreach (var endpoint in endpoints)
        {
            var path = "/" + endpoint.RoutePattern.RawText!.TrimStart('/').Replace("{id}", "x", StringComparison.Ordinal)
                .Replace("{model}", "x", StringComparison.Ordinal).Replace("{**model}", "x", StringComparison.Ordinal).Replace("{**path}", "", StringComparison.Ordinal);
            path.ShouldNotContain("{");
            var methods = endpoint.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods ?? ["GET", "POST"];
            foreach (var method in methods)
            {
                foreach (var address in new[] { keyed.Server.Address, keyed.Server.AdminAddress })
                {
                    using var request = new HttpRequestMessage(new HttpMethod(method), new Uri(address, path));
                    using var response = await SendAsync(request);
                    var isOpen = Open.Contains(path);
                    (response.StatusCode == HttpStatusCode.Unauthorized).ShouldBe(!isOpen, $"{method} {address}{path}: {response.StatusCode}");
                    (endpoint.Metadata.GetMetadata<IAllowAnonymous>() is not null).ShouldBe(isOpen, path);
                }
            }
        }
    }

    [Theory]
    [InlineData(null, "You didn't provide an API key")]
    [InlineData("Bearer wrong", "Incorrect API key")]
    [InlineData("Bearer a-long-random-tex", "Incorrect API key")]
    [InlineData("Basic eDphLWxvbmctcmFuZG9tLXRleHQ=", "Incorrect API key")]
    [InlineData("a-long-random-text", "Incorrect API key")]
    public async Task WrongKey_Returns401InOpenAIsShape(string? authorization, string message)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(keyed.Server.Address, "/v1/models"));
        if (authorization is not null)
        {
            request.Headers.TryAddWithoutValidation("Authorization", authorization);
        }

        using var response = await SendAsync(request);

        response.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        var error = (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error");
        error.GetProperty("code").GetString().ShouldBe("invalid_api_key");
        error.GetProperty("message").GetString()!.ShouldContain(message);
        response.Headers.Contains("x-request-id").ShouldBeTrue();
    }

    [Fact]
    public async Task RightKey_IsLetIn()
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(keyed.Server.Address, "/v1/models"));
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", Key);

        using var response = await SendAsync(request);

        response.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task UnknownPath_WithoutAKey_Returns401()
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(keyed.Server.Address, "/v1/nothing"));
        using var response = await SendAsync(request);

        response.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
    }

    [Theory]
    [InlineData("/swagger/index.html")]
    [InlineData("/swagger/v1/swagger.json")]
    public async Task StaticPages_NeedNoKey(string path)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(keyed.Server.Address, path));
        using var response = await SendAsync(request);

        response.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Dashboard_BrowserIsAskedForTheKey()
    {
        using var without = new HttpRequestMessage(HttpMethod.Get, new Uri(keyed.Server.AdminAddress, "/hangfire"));
        using var refused = await SendAsync(without);
        refused.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        refused.Headers.WwwAuthenticate.ToString().ShouldContain("Basic");

        using var with = new HttpRequestMessage(HttpMethod.Get, new Uri(keyed.Server.AdminAddress, "/hangfire"));
        with.Headers.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes($"me:{Key}")));
        using var shown = await SendAsync(with);
        shown.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await shown.Content.ReadAsStringAsync(Token)).ShouldContain("Hangfire");
    }

    private static async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request)
    {
        using var client = new HttpClient(new HttpClientHandler { AllowAutoRedirect = false });
        return await client.SendAsync(request, Token);
    }
}
