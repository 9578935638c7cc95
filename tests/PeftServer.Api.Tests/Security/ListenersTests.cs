using System.Net;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.Security;

public sealed class ListenersTests(ApiServer server, TestCluster cluster) : IClassFixture<ApiServer>
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("--Api:Url=http://*:0")]
    [InlineData("--Api:Url=http://0.0.0.0:0")]
    [InlineData("--Api:Url=http://192.168.7.7:8080")]
    [InlineData("--Api:AdminUrl=http://[::]:0")]
    public void Build_OpenToOthersWithoutAKey_IsRefused(string setting)
    {
        var refused = Should.Throw<InvalidOperationException>(() => ApiHost.Build([setting, $"--ConnectionStrings:Postgres={server.Database.ConnectionString}"]));

        refused.Message.ShouldContain("Auth:ApiKey");
        refused.Message.ShouldContain(setting.Split('=')[0][2..]);
    }

    [Theory]
    [InlineData("https://127.0.0.1:8080")]
    [InlineData("nonsense")]
    [InlineData("http://no-such-host:8080")]
    public void Build_WrongUrl_IsRefusedInWords(string url) =>
        Should.Throw<InvalidOperationException>(() => ApiHost.Build([$"--Api:Url={url}"])).Message.ShouldContain("Api:Url");

    [Fact]
    public async Task OpenToOthersWithAKey_Starts()
    {
        await using var open = await ApiServer.StartAsync(cluster, ("Api:Url", "http://*:0"), ("Auth:ApiKey", "secret"));

        using var response = await open.Client.GetAsync($"http://127.0.0.1:{open.Address.Port}/healthz", Token);

        response.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("evil.example.org", HttpStatusCode.Forbidden)]
    [InlineData("evil.example.org:8080", HttpStatusCode.Forbidden)]
    [InlineData("192.168.1.1", HttpStatusCode.Forbidden)]
    [InlineData("localhost.evil.org", HttpStatusCode.Forbidden)]
    [InlineData("localhost", HttpStatusCode.OK)]
    [InlineData("localhost:1234", HttpStatusCode.OK)]
    [InlineData("[::1]:8080", HttpStatusCode.OK)]
    [InlineData("127.0.0.1:9999", HttpStatusCode.OK)]
    public async Task Host_OfAPageThatRebindsItsName_IsRefused(string host, HttpStatusCode expected)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/models");
        request.Headers.Host = host;

        using var response = await server.Client.SendAsync(request, Token);

        response.StatusCode.ShouldBe(expected);
    }

    [Theory]
    [InlineData("https://evil.example.org", HttpStatusCode.Forbidden)]
    [InlineData("null", HttpStatusCode.Forbidden)]
    [InlineData("http://localhost:1", HttpStatusCode.Forbidden)]
    [InlineData("SELF", HttpStatusCode.OK)]
    public async Task Origin_OfAnotherSite_IsRefused(string origin, HttpStatusCode expected)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/models");
        request.Headers.Add("Origin", origin.Replace("SELF", server.Address.GetLeftPart(UriPartial.Authority), StringComparison.Ordinal));

        using var response = await server.Client.SendAsync(request, Token);

        response.StatusCode.ShouldBe(expected);
    }

    [Fact]
    public async Task Cors_AllowedOrigin_PassesItsPreflightWithoutAKey()
    {
        await using var cors = await ApiServer.StartAsync(cluster, ("Api:CorsOrigins:0", "https://studio.example.org"), ("Auth:ApiKey", "secret"));
        using var preflight = new HttpRequestMessage(HttpMethod.Options, "/v1/fine_tuning/jobs");
        preflight.Headers.Add("Origin", "https://studio.example.org");
        preflight.Headers.Add("Access-Control-Request-Method", "POST");
        preflight.Headers.Add("Access-Control-Request-Headers", "authorization,content-type");

        using var response = await cors.Client.SendAsync(preflight, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.NoContent);
        response.Headers.GetValues("Access-Control-Allow-Origin").ShouldBe(["https://studio.example.org"]);
    }

    [Fact]
    public async Task Dashboard_IsOnTheAdminListenerOnlyAndTheApiIsNot()
    {
        using var dashboard = await server.Client.GetAsync(new Uri(server.AdminAddress, "/hangfire"), Token);
        using var elsewhere = await server.Client.GetAsync("/hangfire", Token);
        using var api = await server.Client.GetAsync(new Uri(server.AdminAddress, "/v1/models"), Token);

        dashboard.StatusCode.ShouldBe(HttpStatusCode.OK);
        elsewhere.StatusCode.ShouldBe(HttpStatusCode.NotFound);
        api.StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    [Theory]
    [InlineData("SELF", HttpStatusCode.OK)]
    [InlineData("https://evil.example.org", HttpStatusCode.Forbidden)]
    public async Task Dashboard_PollsItsFigures_FromItsOwnPageOnly(string origin, HttpStatusCode expected)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(server.AdminAddress, "/hangfire/stats"))
        {
            Content = new FormUrlEncodedContent([new("metrics[]", "enqueued:count-or-null")]),
        };
        request.Headers.Add("Origin", origin.Replace("SELF", server.AdminAddress.GetLeftPart(UriPartial.Authority), StringComparison.Ordinal));

        using var response = await server.Client.SendAsync(request, Token);

        response.StatusCode.ShouldBe(expected);
    }

    [Theory]
    [InlineData("/v1/files?after=%00")]
    [InlineData("/v1/fine_tuning/jobs?metadata[a]=%00")]
    public async Task NullCharacter_InTheQuery_Returns400(string path)
    {
        var (status, body) = await server.GetAsync(path);

        status.ShouldBe(HttpStatusCode.BadRequest);
        body.GetProperty("error").GetProperty("message").GetString()!.ShouldContain("U+0000");
    }
}
