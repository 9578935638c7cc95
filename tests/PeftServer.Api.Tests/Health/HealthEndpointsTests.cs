using System.Net;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.Health;

public sealed class HealthEndpointsTests(ApiServer server, TestCluster cluster) : IClassFixture<ApiServer>
{
    [Theory]
    [InlineData("/healthz")]
    [InlineData("/readyz")]
    [InlineData("/health")]
    public async Task Health_OnBothListeners_IsOk(string path)
    {
        (await server.GetAsync(path)).Status.ShouldBe(HttpStatusCode.OK);
        (await server.GetAsync(new Uri(server.AdminAddress, path).ToString())).Status.ShouldBe(HttpStatusCode.OK);
        using var head = await server.Client.SendAsync(new HttpRequestMessage(HttpMethod.Head, path), TestContext.Current.CancellationToken);
        head.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Ready_NoDatabase_Returns503AndTellsNobodyWhere()
    {
        await using var alone = await ApiServer.StartAsync(cluster, ("ConnectionStrings:Postgres", "Host=127.0.0.1;Port=1;Username=nobody;Timeout=2"));

        var (status, body) = await alone.GetAsync("/readyz");

        status.ShouldBe(HttpStatusCode.ServiceUnavailable);
        body.GetProperty("reason").GetString().ShouldBe("The database does not answer");
        (await alone.GetAsync("/healthz")).Status.ShouldBe(HttpStatusCode.OK);
        var (away, error) = await alone.GetAsync("/v1/files");
        away.ShouldBe(HttpStatusCode.ServiceUnavailable);
        error.GetProperty("error").GetProperty("code").GetString().ShouldBe("database_unavailable");
    }
}
